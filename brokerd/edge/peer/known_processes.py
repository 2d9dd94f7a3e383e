# What brokerd remembers of processes that connected before, so that the next connection of the same process costs less.
# A process is known by the inode of its pidfd: on pidfs (Linux 6.9) each process has a number of its own, which the
# kernel never gives again. Where pidfds have no such numbers, nothing is remembered.
from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from brokerd.core.access.policy import Caller
from brokerd.edge.peer.executables import Executed, Program
from brokerd.edge.peer.inodes import file_system
from brokerd.edge.peer.pidfds import is_foreign

PIDFS = 0x50494446  # statfs(2)
MOST = 1_024

Glance = tuple[str, Program, Caller, Caller]  # cgroup and program as seen last, the caller before that, and with it


@dataclass(slots=True, eq=False)
class KnownProcess:
    """`foreign`: it is in another pid namespace, which never changes. `caller`: as it connected last; equal ones are
    the same object. `glanced`: the evidence that it showed last, which is read again for each request, or
    once for all its requests that were read together; `looked`: for which of these, and what was looked for."""

    foreign: bool
    executed: Executed | None = None
    caller: Caller | None = None
    glanced: Glance | None = None
    looked: tuple[object, frozenset[str]] | None = None

    def as_before(self, caller: Caller) -> Caller:
        if self.caller is None or caller != self.caller:
            self.caller = caller
        return self.caller


_known: dict[int, KnownProcess] = {}


@functools.cache
def _have_numbers() -> bool:
    """Whether each process has a number of its own."""
    ours = os.pidfd_open(os.getpid())
    try:
        return file_system(ours) == PIDFS
    finally:
        os.close(ours)


def known(pidfd: int) -> KnownProcess:
    """What is known of the process. Raises OSError if it has ended and nothing is known of it."""
    if not _have_numbers():
        return KnownProcess(is_foreign(pidfd))
    number = os.fstat(pidfd).st_ino
    if (found := _known.get(number)) is None:
        made = KnownProcess(is_foreign(pidfd))
        if len(_known) >= MOST:
            _known.clear()
        found = _known[number] = made
    return found
