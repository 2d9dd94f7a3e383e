# The daemon's process as the kernel sees it, and what it refuses to live in: no core, no tracer of the same user, no
# new privileges, nothing swapped where that is allowed, no secret in its environment, no directory of others.
from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from brokerd.edge.files.ownership import ELSEWHERE
from tests.scenario.daemon.harness import CLIENT, FIVE, Brokerd, Serving, at
from tests.servers import OAUTH2_SECRET, OAuth2

CONFIGURATION = 2  # exit status
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root as any other user
CAN_TRACE = """
import ctypes, os, sys
libc, pid = ctypes.CDLL(None), int(sys.argv[1])
print("attached" if libc.ptrace(16, pid, None, None) == 0 else "refused")
for name in ("mem", "environ", "maps", "fd/0"):
    try:
        os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
        print(name)
    except PermissionError:
        print("refused")
"""


def rights_over(pid: int) -> list[str]:
    """What another process of this user can do to that one."""
    rights = () if os.geteuid() else WITHOUT_CAPABILITIES
    done = subprocess.run([*rights, sys.executable, "-c", CAN_TRACE, str(pid)], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().split()


def field(brokerd: Brokerd, name: str) -> str:
    """A line of proc(5), status."""
    lines = brokerd.proc("status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


async def test_nobody_of_its_user_can_trace_it_or_read_its_memory(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    brokerd.within = () if os.geteuid() else WITHOUT_CAPABILITIES
    brokerd.executed = True
    await brokerd.start()
    other = await trio.lowlevel.open_process([*brokerd.within, "cat"], stdin=subprocess.PIPE)
    assert await trio.to_thread.run_sync(rights_over, brokerd.pid) == ["refused"] * 5
    assert await trio.to_thread.run_sync(rights_over, other.pid) == ["attached", "mem", "environ", "maps", "fd/0"]
    other.kill()
    await other.wait()


async def test_it_leaves_no_core_gains_no_rights_and_makes_files_for_itself_alone(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    assert resource.prlimit(brokerd.pid, resource.RLIMIT_CORE) == (0, 0)
    assert (field(brokerd, "NoNewPrivs"), field(brokerd, "Umask")) == ("1", "0077")
    assert brokerd.socket.parent.stat().st_mode & 0o777 == 0o755, "callers have to come through"


@pytest.mark.parametrize(
    ("within", "locked"),
    [
        pytest.param((*WITHOUT_CAPABILITIES, "prlimit", "--memlock=8388608:8388608"), False, id="8 MiB"),
        pytest.param(("prlimit", "--memlock=8388608:8388608"), True, id="CAP_IPC_LOCK"),
    ],
)
async def test_memory_is_locked_where_that_cannot_make_an_allocation_fail(
    brokerd: Brokerd, as_root: None, within: tuple[str, ...], locked: bool
) -> None:
    brokerd.configure({}, {})
    brokerd.within = within
    await brokerd.start()
    assert (int(field(brokerd, "VmLck").split()[0]) > 10_000) == locked
    assert ("LimitMEMLOCK=infinity" in brokerd.log) != locked


async def test_a_secret_of_the_environment_is_gone_from_it(
    brokerd: Brokerd, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = await serving(OAuth2())
    key = brokerd.key.read_text()
    credentials = {**CLIENT, "client_secret": {"env": "TEST_ONLY_SECRET"}}
    brokerd.configure(
        {"app": {**FIVE["oauth2"], "credentials": credentials}}, {"oauth2": at(provider)}, key={"env": "TEST_ONLY_KEY"}
    )
    monkeypatch.setenv("TEST_ONLY_SECRET", OAUTH2_SECRET)
    monkeypatch.setenv("TEST_ONLY_KEY", key)
    monkeypatch.setenv("TEST_ONLY_REST", "test-only-rest")
    brokerd.executed = True
    await brokerd.start()
    environ = brokerd.proc("environ").read_bytes()
    assert b"TEST_ONLY_REST=test-only-rest\0" in environ
    assert b"TEST_ONLY_SECRET=\0" in environ
    assert OAUTH2_SECRET.encode() not in environ
    assert key.strip().encode() not in environ
    assert await brokerd.get("app"), "it is remembered where it is needed"
    await brokerd.call("reload")
    await brokerd.call("refresh", grant="app")


async def test_it_says_that_it_runs_as_root(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    assert ("brokerd runs as root" in brokerd.log) == (os.geteuid() == 0)


def too_open(path: Path) -> str:
    path.chmod(0o640 if path.is_file() else 0o750)
    return f"{path} can be opened by others than its owner; chmod {'600' if path.is_file() else '700'} {path}"


def too_shut(path: Path) -> str:
    path.chmod(0o400)
    return f"{path} cannot be read and written by its owner; chmod 600 {path}"


def somebodys(path: Path) -> str:
    os.chown(path, 65_000, -1)
    return f"{path} belongs to 65000; run brokerd as 65000"  # not: chown root, it may be a service's


def links_elsewhere(path: Path) -> str:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    words = "replace the link by the file, or set [daemon] state_dir to the directory of the files"
    return f"{path} is a link, which may lead to a place where others can open it; {words}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("", too_open),
        ("brokerd.db", too_open),
        ("lock", too_shut),
        ("", somebodys),
        ("audit", too_open),
        ("audit/audit-0001.jsonl", somebodys),
        ("audit", links_elsewhere),
        ("lock", links_elsewhere),
        ("brokerd.db-wal", somebodys),
    ],
)
async def test_a_state_directory_that_is_not_its_own_is_refused_with_the_command_that_mends_it(
    brokerd: Brokerd, as_root: None, name: str, change: Callable[[Path], str]
) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    await brokerd.stop()
    (brokerd.state / "brokerd.db-wal").touch(mode=0o600)  # as after a crash
    words = change(brokerd.state / name)
    status, said = await brokerd.refuses_to_start()
    assert (status, said) == (CONFIGURATION, f"brokerd: {words}\n")
    if "is a link" in words:
        (brokerd.state / name).unlink()
        (brokerd.state / "elsewhere").rename(brokerd.state / name)
    elif "run brokerd as" in words:
        os.chown(brokerd.state / name, 0, -1)
    else:
        await trio.run_process(words.rpartition("; ")[2].split())
    await brokerd.start()


async def test_a_socket_that_others_could_replace_is_refused(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    folder = brokerd.socket.parent
    folder.mkdir()
    for mode in (0o777, 0o775, 0o1777):  # in one like /tmp it could be replaced while brokerd is not there
        folder.chmod(mode)
        status, said = await brokerd.refuses_to_start()
        remedy = ELSEWHERE["the socket"] if mode & 0o1000 else f"chmod go-w {folder}"
        words = f"{folder} can be written by others, who could replace the socket; {remedy}"
        assert (status, said) == (CONFIGURATION, f"brokerd: {words}\n")
    folder.chmod(0o755)
    await brokerd.start()


@pytest.mark.parametrize("what", ["the socket", "the state directory"])
async def test_a_way_on_which_others_could_put_another_directory_is_refused(brokerd: Brokerd, what: str) -> None:
    way = brokerd.folder / "way"
    deep = way / "below" / "it"
    brokerd.configure({}, {}, **({"socket": deep / "s"} if what == "the socket" else {"state_dir": deep}))
    deep.mkdir(parents=True, mode=0o700)
    way.chmod(0o777)
    status, said = await brokerd.refuses_to_start()
    words = f"{way} can be written by others, who could replace {what}; {ELSEWHERE[what]}"
    assert (status, said) == (CONFIGURATION, f"brokerd: {words}\n")
    way.chmod(0o1777)  # where only its owner renames a directory, as in /tmp
    brokerd.launch()
    await brokerd.said("event=ready")
