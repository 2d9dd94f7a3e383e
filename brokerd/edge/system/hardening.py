# Hardens the process before it holds a secret: no core dumps, no tracing, no new privileges, no swapped memory, and no
# files that others can read.
from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # prctl(2)
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # mlockall(2); ONFAULT locks memory that is used, not all reserved
CAP_IPC_LOCK = 14  # capabilities(7)
UMASK = 0o077
_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> None:
    """Call this first. Afterwards no process of the same user can trace this one, or read its memory or its files in
    /proc; a crash leaves no core dump; programs that it starts gain no privileges. Raises OSError."""
    _prctl(PR_SET_DUMPABLE, 0)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):  # if the unit has set it, setrlimit may be forbidden
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.umask(UMASK)


def lock_memory() -> bool:
    """Keep all memory out of swap, if there is no limit for that: with a limit, every allocation beyond it would fail.
    Returns whether the memory is locked."""
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if not (unlimited or _may_lock()):
        return False
    return bool(_libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


def _may_lock() -> bool:
    """Whether CAP_IPC_LOCK is effective: then there is no limit."""
    with Path("/proc/self/status").open() as file:
        found = next((line for line in file if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(found.split()[1], 16) >> CAP_IPC_LOCK & 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
