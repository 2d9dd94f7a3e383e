# The memory of a shared token, as whoever gets its descriptor sees it: it can be read, and nothing else.
from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.edge.system import shared_memory
from brokerd.edge.system.shared_memory import SharedMemory

SIZE = 64 * 1024
SECRET = b"test-only-value"


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory(SIZE)
    made.view[: len(SECRET)] = SECRET
    yield made
    made.stop_writing()
    made.close()


def as_nobody(work: Callable[[], Any]) -> int:
    """The errno with which that fails in a process of another user; 0: it works."""
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setresgid(65_534, 65_534, 65_534)
                os.setresuid(65_534, 65_534, 65_534)
            work()
        except OSError as error:
            os._exit(error.errno or 255)
        except BaseException:
            os._exit(254)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def reopened(descriptor: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def madvise_away(descriptor: int) -> None:
    mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ).madvise(mmap.MADV_REMOVE)


WRITES: dict[str, Callable[[int], Any]] = {
    "write": lambda descriptor: os.pwrite(descriptor, b"x", 0),
    "a writable map": lambda descriptor: mmap.mmap(descriptor, SIZE),
    "opened again for writing": lambda descriptor: os.pwrite(reopened(descriptor, os.O_RDWR), b"x", 0),
    "opened again and mapped": lambda descriptor: mmap.mmap(reopened(descriptor, os.O_RDWR), SIZE),
    "cut off": lambda descriptor: os.ftruncate(reopened(descriptor, os.O_RDWR), 0),
    "cut off by opening": lambda descriptor: reopened(descriptor, os.O_RDWR | os.O_TRUNC),
    "made longer": lambda descriptor: os.ftruncate(reopened(descriptor, os.O_RDWR), 2 * SIZE),
    "removed": madvise_away,
    "executed": lambda descriptor: os.execve(descriptor, ["x"], {}),
    "another mode": lambda descriptor: os.fchmod(descriptor, 0o777) or os.execve(descriptor, ["x"], {}),
    "unsealed": lambda descriptor: fcntl.fcntl(reopened(descriptor, os.O_RDWR), shared_memory.F_ADD_SEALS, 0x0008),
}
REFUSED = {errno.EPERM, errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOEXEC}


@pytest.mark.parametrize("way", WRITES)
def test_nobody_writes_who_gets_the_descriptor(memory: SharedMemory, way: str) -> None:
    descriptor = memory.descriptor()
    assert as_nobody(lambda: WRITES[way](descriptor)) in REFUSED
    os.close(descriptor)
    assert memory.view[: len(SECRET)] == SECRET


@pytest.mark.parametrize("way", WRITES)
def test_nor_does_the_user_of_brokerd_itself(memory: SharedMemory, way: str) -> None:
    """Root too: the seals hold for everybody."""
    descriptor = memory.descriptor()
    with pytest.raises(OSError, match=r".") as failed:
        WRITES[way](descriptor)
    assert failed.value.errno in REFUSED
    os.close(descriptor)
    assert memory.view[: len(SECRET)] == SECRET


def test_a_private_map_writes_to_a_copy(memory: SharedMemory) -> None:
    descriptor = memory.descriptor()
    copy = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    copy[:4] = b"mine"
    assert memory.view[: len(SECRET)] == SECRET


def test_another_user_cannot_open_it_anew_even_for_reading(memory: SharedMemory) -> None:
    descriptor = memory.descriptor()
    if os.geteuid() == 0:
        assert as_nobody(lambda: reopened(descriptor, os.O_RDONLY)) == errno.EACCES
    os.close(descriptor)


def test_what_is_written_later_is_seen(memory: SharedMemory) -> None:
    descriptor = memory.descriptor()
    mapped = mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)
    os.close(descriptor)
    assert mapped[: len(SECRET)] == SECRET
    memory.view[:5] = b"later"
    assert mapped[:5] == b"later"


def test_it_is_known_who_still_holds_it(memory: SharedMemory) -> None:
    assert not memory.is_held()
    descriptor = memory.descriptor()
    assert memory.is_held()
    mapped = mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)
    os.close(descriptor)
    assert memory.is_held(), "mapped"
    mapped.close()
    assert not memory.is_held()
    again = reopened(memory._reading, os.O_RDWR)
    assert memory.is_held(), "open for writing, though nobody can write"
    os.close(again)
    assert not memory.is_held()


def test_without_leases_it_counts_as_held(memory: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no leases here")

    monkeypatch.setattr(fcntl, "fcntl", refuses)
    assert memory.is_held()


def test_an_older_kernel_knows_no_seal_against_executing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.memfd_create, list[int]()

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & shared_memory.MFD_NOEXEC_SEAL:
            raise OSError(errno.EINVAL, "unknown flag")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    made = SharedMemory(SIZE)
    assert len(asked) == 2
    made.stop_writing()
    made.close()


def test_nothing_stays_open_after_its_end() -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    made = SharedMemory(SIZE)
    made.stop_writing()
    made.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
