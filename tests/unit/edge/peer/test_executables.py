# The program that a process executes is recognised without asking its file system; every change makes brokerd read it
# again.
from __future__ import annotations

import contextlib
import hashlib
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokerd.edge.peer import executables
from brokerd.edge.peer.executables import PATH_KNOWN, Executed, Program, read


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was changed a moment ago is remembered, and nothing from before."""
    monkeypatch.setattr(executables, "SETTLED", -math.inf)
    for memory in ("_known", "_in_memory", "_hashes"):
        monkeypatch.setattr(executables, memory, {})


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "program"
    path.parent.mkdir()
    path.write_bytes(Path("/bin/cat").read_bytes())
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def running(program: Path) -> Iterator[int]:
    """Its pid, once it has begun."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"!")
        process.stdin.flush()
        process.stdout.read(1)
        yield process.pid
        process.kill()


def glance(pid: int, *, hashed: bool) -> Program | None:
    """The first one at the process."""
    return Executed(pid).glance(hashed=hashed)


def change(path: Path, how: Callable[[], object]) -> None:
    """As often as it takes to move the ctime, which some kernels count in ticks."""
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        how()


def test_it_is_known_again_by_path_and_hash(program: Path) -> None:
    whole = Program(str(program), hashlib.sha256(program.read_bytes()).hexdigest())
    with running(program) as pid, running(program) as other:
        assert glance(pid, hashed=True) is None
        assert read(pid, hashed=False) == Program(str(program))
        assert glance(pid, hashed=False) == Program(str(program))
        assert glance(pid, hashed=True) is None
        assert read(pid, hashed=True) == whole._replace(hashed=program.stat().st_size)
        assert glance(pid, hashed=True) == glance(other, hashed=True) == whole


def its_attributes(program: Path) -> None:
    change(program, lambda: program.chmod(0o755))


def its_name(program: Path) -> None:
    program.rename(program.with_name("moved"))


def the_name_of_its_folder(program: Path) -> None:
    program.parent.rename(program.parent.with_name("moved"))


def that_it_is_there(program: Path) -> None:
    program.unlink()


def what_is_in_its_place(program: Path) -> None:
    other = program.with_name("other")
    other.write_bytes(program.read_bytes())
    other.rename(program)


@pytest.mark.parametrize(
    "changed", [its_attributes, its_name, the_name_of_its_folder, that_it_is_there, what_is_in_its_place]
)
def test_what_changes_has_to_be_read(program: Path, changed: Callable[[Path], None]) -> None:
    with running(program) as pid:
        read(pid, hashed=True)
        changed(program)
        assert glance(pid, hashed=False) is None


def test_what_is_mounted_over_it_here_is_noticed_after_a_while(
    program: Path, monkeypatch: pytest.MonkeyPatch, as_root: None
) -> None:
    with running(program) as pid:
        read(pid, hashed=True)
        assert glance(pid, hashed=True)
        subprocess.run(["mount", "--bind", "/bin/sh", program], check=True)
        later = time.monotonic() + executables.BELIEVED
        monkeypatch.setattr(time, "monotonic", lambda: later)
        try:
            assert glance(pid, hashed=True) is None
            assert "leads to another file" in read(pid, hashed=True).unread["exe"]
            assert glance(pid, hashed=True) is None
        finally:
            subprocess.run(["umount", program], check=True)


def test_what_is_written_into_it_has_to_be_read(program: Path) -> None:
    with running(program) as pid:
        before = read(pid, hashed=True).sha256
    change(program, lambda: program.write_bytes(program.read_bytes()[:-1] + b"!"))
    with running(program) as pid:
        assert glance(pid, hashed=False) is None
        assert read(pid, hashed=True).sha256 != before


def test_a_hard_link_is_another_path(program: Path) -> None:
    link = program.with_name("link")
    link.hardlink_to(program)
    with running(program) as pid, running(link) as other:
        read(pid, hashed=True)
        assert glance(other, hashed=False) is None
        assert read(other, hashed=False).exe == str(link)


def test_the_number_of_its_inode_may_be_given_to_another_file(program: Path) -> None:
    content, number = program.read_bytes(), program.stat().st_ino
    with running(program) as pid:
        before = read(pid, hashed=True).sha256
    for _ in range(100):  # ext4 does so at once, others never
        program.unlink()
        program.write_bytes(content[:-1] + b"!")
        if program.stat().st_ino == number:
            break
    program.chmod(0o755)
    with running(program) as pid:
        assert glance(pid, hashed=False) is None
        assert read(pid, hashed=True).sha256 != before


def test_what_may_not_be_read_is_said_at_once(as_root: None) -> None:
    os.seteuid(60_900)
    try:
        found = glance(1, hashed=True)
        assert found == read(1, hashed=True)
    finally:
        os.seteuid(0)
    assert found.unread == {"exe": executables.NEEDS, "sha256": executables.NEEDS}


def test_what_lies_far_away_is_never_known_again(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executables, "IN_MEMORY", frozenset())
    with running(program) as pid:
        assert read(pid, hashed=True).sha256
        assert glance(pid, hashed=True) is None


def test_what_is_hashed_is_counted_each_time(program: Path) -> None:
    with running(program) as pid:
        size = program.stat().st_size
        assert [read(pid, hashed=hashed).hashed for hashed in (False, True, True)] == [0, size, 0]
        change(program, lambda: program.chmod(0o755))
        assert read(pid, hashed=True).hashed == size


@pytest.mark.parametrize("changed", [its_attributes, its_name, that_it_is_there, what_is_in_its_place])
def test_a_change_of_its_file_is_noticed_at_the_next_glance(program: Path, changed: Callable[[Path], None]) -> None:
    with running(program) as pid:
        read(pid, hashed=True)
        executed = Executed(pid)
        assert executed.glance(hashed=True)
        assert executed.glance(hashed=True)
        changed(program)
        assert executed.glance(hashed=True) is None


def test_another_program_in_the_process_is_noticed_at_the_next_glance(program: Path) -> None:
    script = f'import os; os.read(0, 1); os.execv("{program}", ["{program}"])'
    with subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        read(process.pid, hashed=True)
        executed = Executed(process.pid)
        assert (before := executed.glance(hashed=True))
        process.stdin.write(b"!!")
        process.stdin.flush()
        assert process.stdout.read(1) == b"!", "cat repeats what was left for it"
        after = executed.glance(hashed=True)
        process.kill()
    assert before.exe != str(program)
    assert after is None


def test_another_name_of_its_folder_is_noticed_after_a_hundredth_of_a_second(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with running(program) as pid:
        read(pid, hashed=True)
        executed = Executed(pid)
        assert executed.glance(hashed=True)
        program.parent.rename(program.parent.with_name("moved"))
        now += PATH_KNOWN
        assert executed.glance(hashed=True) is None


def test_a_glance_without_the_hash_does_not_answer_for_one_with_it(program: Path) -> None:
    with running(program) as pid:
        read(pid, hashed=False)
        executed = Executed(pid)
        assert executed.glance(hashed=False)
        assert executed.glance(hashed=True) is None
        assert executed.glance(hashed=False)
        assert executed.glance(hashed=True) is None
