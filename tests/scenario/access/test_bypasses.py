# The table of attempts to get a token past the rules (law 9), each by a real process and refused. A row is an attempt's
# name and what it does; test_allowed_callers.py shows that the same processes get theirs when they keep to the rules.
from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenario.access.hanging_file_system import disk
from tests.scenario.access.world import (
    APP,
    DYNAMIC,
    ID,
    NOBODY,
    OTHER,
    OTHER_ID,
    SPECIAL,
    KernelRefused,
    World,
    request,
)

REFUSED = {"closed", "denied", "unknown_grant"}
Attempt = Callable[[World], str]


# -- another process on the connection


def a_forked_child(here: World) -> str:
    return here.process(APP).connect().fork().asks("uid")


def a_child_of_a_child(here: World) -> str:
    return here.process(APP).connect().fork().fork().asks("uid")


def a_child_after_its_parent_was_served(here: World) -> str:
    process = here.process(APP).connect()
    assert process.asks("uid") == "token"
    return process.fork().asks("uid")


def an_orphan(here: World) -> str:
    return here.process(APP).connect().leave_to_a_child().asks("uid")


def a_process_with_the_number_of_the_dead_caller(here: World) -> str:
    return here.process().connect().leave_to_a_child_with_our_number().asks("uid")


def the_number_of_a_dead_caller_who_was_served(here: World) -> str:
    process = here.process().connect()
    assert process.asks("uid") == "token"
    return process.leave_to_a_child_with_our_number().asks("uid")


def the_number_of_a_dead_caller_in_its_unit(here: World) -> str:
    process = here.process(within="portal.service").connect()
    return process.leave_to_a_child_with_our_number().become(APP, APP).asks("unit")


def a_child_ends_its_parents_sentence(here: World) -> str:
    process, said = here.process(APP).connect(), request("uid")
    process.send(said[:9].hex())
    process.fork().send(said[9:].hex())
    return process.reply()


def a_push_to_who_inherited_the_connection(here: World) -> str:
    process = here.process(APP).connect()
    process.watches("watched-1")
    process.leave_to_a_child()
    here.refresh("watched-1")
    return process.reply()


def a_push_to_the_number_of_the_dead_caller(here: World) -> str:
    process = here.process().connect()
    process.watches("watched-2")
    process.leave_to_a_child_with_our_number()
    here.refresh("watched-2")
    return process.reply()


def roots_connection_inherited_by_a_user(here: World) -> str:
    return here.process().connect().fork().become(APP, APP).asks("group")


def a_socket_handed_to_another_process(here: World) -> str:
    owner = here.process(APP).connect()
    ours, its = socket.socketpair()
    with ours, its:
        taker = here.process(APP, sock=its)
        socket.send_fds(ours, [b"!"], [owner.number])
        taker.take().send(request("uid").hex())
    return owner.reply()


def a_socket_handed_to_another_user(here: World) -> str:
    owner = here.process(APP).connect()
    ours, its = socket.socketpair()
    with ours, its:
        taker = here.process(OTHER, sock=its)
        socket.send_fds(ours, [b"!"], [owner.number])
        taker.take().send(request("uid").hex())
    return owner.reply()


def a_socket_that_was_stolen_from_a_process(here: World) -> str:
    owner = here.process(APP).connect()
    here.process().steal(owner.pid, owner.number).send(request("uid").hex())
    return owner.reply()


def a_socket_handed_into_a_pid_namespace(here: World) -> str:
    owner = here.process().connect()
    here.process(sock=owner.sock).unshare("pid").fork().send(request("uid").hex())
    return owner.reply()


def the_claim_to_be_the_caller(here: World) -> str:
    process = here.process(APP).connect()
    process.fork().send_claiming(request("uid").hex(), process.pid, APP, APP)
    return process.reply()


def the_claim_to_be_the_caller_as_root_of_a_user_namespace(here: World) -> str:
    process = here.process(APP).connect()
    process.fork().unshare("user").map(0, APP, APP).send_claiming(request("uid").hex(), process.pid, 0, 0)
    return process.reply()


def the_claim_to_be_root(here: World) -> str:
    process = here.process(OTHER).connect()
    process.send_claiming(request("uid").hex(), 0, 0, 0)
    return process.reply()


def descriptors_in_a_request(here: World) -> str:
    process = here.process(APP).connect()
    process.send_with_descriptors(request("uid").hex(), 253)
    return process.reply()


# -- another user, or what looks like one


def another_user(here: World) -> str:
    return here.process(OTHER).connect().asks("uid")


def the_uid_of_a_user_namespace(here: World) -> str:
    return here.process(OTHER).unshare("user").map(APP, OTHER, OTHER).connect().asks("uid")


def root_of_a_user_namespace(here: World) -> str:
    return here.process(OTHER).unshare("user").map(0, OTHER, OTHER).connect().asks("uid")


def root_of_a_user_namespace_administers(here: World) -> str:
    return here.process(OTHER).unshare("user").map(0, OTHER, OTHER).connect().asks("", "reload")


def a_user_without_a_mapping(here: World) -> str:
    return here.process(OTHER).unshare("user").connect().asks("nobody")


def the_kernels_nobody(here: World) -> str:
    return here.process(NOBODY).connect().asks("nobody")


def a_setgid_program_after_connecting(here: World) -> str:
    program = here.program("setgid")
    os.chown(program, 0, SPECIAL)
    Path(program).chmod(0o2755)
    return here.process(OTHER).connect().execute(program, "setgid").shell_asks("group")


def a_dynamic_user_in_a_group(here: World) -> str:
    return here.process(DYNAMIC, SPECIAL).connect().asks("group")


def root_of_a_pid_namespace(here: World) -> str:
    return here.process().unshare("pid").fork().connect().asks("uid")


def root_of_a_pid_namespace_administers(here: World) -> str:
    return here.process().unshare("pid").fork().connect().asks("", "adopt")


def a_user_in_a_pid_namespace(here: World) -> str:
    return here.process().unshare("pid").fork().become(APP, APP).connect().asks("uid")


def a_unit_in_a_pid_namespace(here: World) -> str:
    return here.process(within="portal.service").unshare("pid").fork().connect().asks("unit")


# -- another program


def another_program(here: World) -> str:
    return here.process(APP).connect().execute(here.evil, "portal").shell_asks("exe")


def another_program_by_its_hash(here: World) -> str:
    return here.process(APP).connect().execute(here.evil, "portal").shell_asks("sha256")


def a_program_that_calls_itself_so(here: World) -> str:
    return here.process(APP).connect().execute(here.evil, here.portal).shell_asks("exe")


def a_copy_at_another_path(here: World) -> str:
    return here.process(APP).connect().execute(here.program("copy"), here.portal).shell_asks("exe")


def a_hard_link_at_another_path(here: World) -> str:
    link = here.folder / "linked"
    link.unlink(missing_ok=True)
    link.hardlink_to(here.portal)
    return here.process(APP).connect().execute(str(link), here.portal).shell_asks("exe")


def the_program_of_another_user(here: World) -> str:
    return here.process(OTHER).connect().execute(here.portal, "portal").shell_asks("exe")


def a_path_forged_by_a_mount(here: World) -> str:
    process = here.process(APP).unshare("user", "mount").map(0, APP, APP).bind(here.evil, here.portal)
    return process.connect().execute(here.portal, "portal").shell_asks("exe")


def a_path_forged_by_a_mount_after_connecting(here: World) -> str:
    process = here.process(APP).connect().unshare("user", "mount").map(0, APP, APP).bind(here.evil, here.portal)
    return process.execute(here.portal, "portal").shell_asks("exe")


def the_bytes_forged_by_a_mount(here: World) -> str:
    process = here.process(APP).unshare("user", "mount").map(0, APP, APP).bind(here.evil, here.portal)
    return process.connect().execute(here.portal, "portal").shell_asks("sha256")


def a_program_in_memory_with_that_name(here: World) -> str:
    return here.process(APP).connect().execute_from_memory(here.portal).shell_asks("exe")


def a_program_that_was_replaced(here: World) -> str:
    path = Path(here.portal)
    process = here.process(APP).connect().execute(here.portal, "portal")
    kept = path.with_name("kept")
    path.rename(kept)
    shutil.copy2(kept, path)
    try:
        kept.rename(path.with_name("gone"))
        return process.shell_asks("exe")
    finally:
        path.with_name("gone").rename(path)


def changed_bytes_of_the_same_size_and_time(here: World) -> str:
    content = bytearray(Path(here.portal).read_bytes())
    content[-1] ^= 1
    path = here.folder / "changed"
    path.write_bytes(content)
    path.chmod(0o755)
    times = Path(here.portal).stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return here.process(APP).connect().execute(str(path), here.portal).shell_asks("sha256")


def another_program_after_the_right_one_was_served(here: World) -> str:
    process = here.process(APP).connect().execute(here.portal, "portal")
    assert process.shell_asks("exe") == "token"
    process.shell_becomes(here.evil)
    return process.shell_asks("exe")


def a_hard_link_after_the_path_was_served(here: World) -> str:
    link = here.folder / "linked"
    link.unlink(missing_ok=True)
    link.hardlink_to(here.portal)
    process = here.process(APP).connect().execute(here.portal, "portal")
    assert process.shell_asks("exe") == "token"
    process.shell_becomes(str(link))
    return process.shell_asks("exe")


def other_bytes_in_the_file_that_was_served(here: World) -> str:
    path = Path(here.portal)
    right = path.read_bytes()
    assert here.process(APP).connect().execute(here.portal, "portal").shell_asks("sha256") == "token"
    here.end_processes()  # what is executed cannot be written
    try:
        with path.open("r+b") as file:
            file.write(right[:-1] + bytes((right[-1] ^ 1,)))
        return here.process(APP).connect().execute(here.portal, "portal").shell_asks("sha256")
    finally:
        here.end_processes()
        path.write_bytes(right)


def a_path_forged_by_a_mount_after_the_right_one_was_served(here: World) -> str:
    assert here.process(APP).connect().execute(here.portal, "portal").shell_asks("exe") == "token"
    return a_path_forged_by_a_mount_after_connecting(here)


def the_right_bytes_from_fuse(here: World) -> str:
    with disk(here.folder / "disk", "portal", Path(here.portal).read_bytes()) as made:
        found = here.process(APP).connect().execute(str(made.path), "portal").shell_asks("sha256")
        here.end_processes()
    return found


# -- another unit, slice, container


def another_unit(here: World) -> str:
    return here.process(APP, within="evil.service").connect().asks("unit")


def no_unit(here: World) -> str:
    return here.process(APP).connect().asks("unit")


def a_unit_that_was_left_after_connecting(here: World) -> str:
    process = here.process(APP, within="portal.service").connect()
    assert process.asks("unit") == "token"
    here.move(process, "evil.service")
    return process.asks("unit")


def a_push_after_the_unit_was_left(here: World) -> str:
    process = here.process(within="portal.service").become(APP, APP).connect()
    process.watches("unit")
    here.move(process, "evil.service")
    here.refresh("unit")
    return process.reply()


def a_push_after_another_program_began(here: World) -> str:
    process = here.process(APP).connect().execute(here.portal, "portal")
    process.shell_watches("exe")
    process.shell_becomes(here.evil)
    here.refresh("exe")
    return process.reply()


def a_folder_named_like_the_unit_below_another(here: World) -> str:
    return here.process(APP, within="evil.service/portal.service").connect().asks("unit")


def a_user_unit_named_like_the_systems(here: World) -> str:
    return here.process(APP, within=f"user@{APP}.service/app.slice/portal.service").connect().asks("unit")


def a_name_that_only_begins_like_the_unit(here: World) -> str:
    return here.process(APP, within="portal.service.d/x.service").connect().asks("unit")


def a_name_in_other_letters(here: World) -> str:
    return here.process(APP, within="Portal.service").connect().asks("unit")


def a_cgroup_namespace(here: World) -> str:
    return here.process(within="evil.service").unshare("cgroup").become(APP, APP).connect().asks("unit")


def another_slice(here: World) -> str:
    return here.process(APP, within="more.slice/portal.service").connect().asks("slice")


def a_slice_below_a_unit(here: World) -> str:
    within = f"evil.service/{here.cgroups.name}/portal.service"
    return here.process(APP, within=f"more.slice/{within}").connect().asks("slice")


def a_unit_of_another_users_systemd(here: World) -> str:
    return here.process(APP, within=f"user@{OTHER}.service/app.slice/portal.service").connect().asks("user-unit")


def a_users_systemd_named_below_a_unit(here: World) -> str:
    return here.process(APP, within=f"evil.service/user@{APP}.service/portal.service").connect().asks("user-unit")


def another_container(here: World) -> str:
    return here.process(within=f"docker-{OTHER_ID}.scope").unshare("pid").fork().connect().asks("container")


def a_container_named_below_a_unit(here: World) -> str:
    return here.process(APP, within=f"evil.service/docker-{ID}.scope").connect().asks("container")


def a_container_named_inside_a_container(here: World) -> str:
    return here.process(APP, within=f"docker-{OTHER_ID}.scope/docker-{ID}.scope").connect().asks("container")


def a_container_named_by_a_user(here: World) -> str:
    return here.process(APP, within=f"user@{APP}.service/user.slice/libpod-{ID}.scope").connect().asks("container")


def part_of_the_containers_id(here: World) -> str:
    return here.process(APP, within=f"docker-{ID[:12]}.scope").connect().asks("container")


# -- reading in memory what the caller may not have any more, or what is another's


def memory_of_a_caller_that_ended(here: World) -> str:
    process = here.process(APP).connect()
    reader = process.shares("shared")
    assert reader.read() is not None
    process.leave_to_a_child()
    return here.read_in_the_end(reader)


def memory_of_a_caller_whose_number_another_has(here: World) -> str:
    process = here.process().connect()
    reader = process.shares("watched-2")
    process.leave_to_a_child_with_our_number()
    return here.read_in_the_end(reader)


def memory_of_a_caller_that_left_its_unit(here: World) -> str:
    process = here.process(within="portal.service").become(APP, APP).connect()
    assert process.asks("unit") == "token"
    reader = process.shares("unit")
    here.move(process, "evil.service")
    return here.read_in_the_end(reader)


def memory_of_a_caller_that_is_another_program_now(here: World) -> str:
    process = here.process(APP).connect().execute(here.portal, "portal")
    assert process.shell_asks("exe") == "token"
    reader = process.shell_shares("exe")
    process.shell_becomes(here.evil)
    return here.read_in_the_end(reader)


def memory_of_a_program_that_was_replaced(here: World) -> str:
    path = Path(here.portal)
    process = here.process(APP).connect().execute(here.portal, "portal")
    assert process.shell_asks("sha256") == "token"
    assert process.shell_asks("exe") == "token"
    reader = process.shell_shares("exe")
    kept = path.with_name("kept")
    path.rename(kept)
    shutil.copy2(kept, path)
    try:
        return here.read_in_the_end(reader)
    finally:
        kept.rename(path)


def memory_asked_for_by_a_child(here: World) -> str:
    return here.process(APP).connect().fork().asks("shared", "share")


def memory_of_a_grant_without_a_right(here: World) -> str:
    return here.process(OTHER).connect().asks("shared", "share")


def memory_by_who_took_the_socket(here: World) -> str:
    """The descriptor of the first answer must not come with the refusal of the second."""
    process = here.process(APP).connect()
    process.send((request("shared", "share")[:5]).hex())
    process.fork().send((request("shared", "share")[5:]).hex())
    data, descriptors, _, _ = socket.recv_fds(process.sock, 65_536, 1)
    assert b"denied" in data or not data
    return "token" if descriptors else "closed"


ATTEMPTS: tuple[Attempt, ...] = tuple(
    each for each in list(globals().values()) if callable(each) and getattr(each, "__module__", "") == __name__
)

IMPOSSIBLE = (  # the kernel refuses them itself
    the_claim_to_be_the_caller,
    the_claim_to_be_the_caller_as_root_of_a_user_namespace,
    the_claim_to_be_root,
)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__.replace("_", "-"))
def test_refused(here: World, attempt: Attempt) -> None:
    if attempt in IMPOSSIBLE:
        with pytest.raises(KernelRefused):
            attempt(here)
    else:
        assert attempt(here) in REFUSED


def test_there_are_at_least_forty() -> None:
    assert len(ATTEMPTS) >= 40
