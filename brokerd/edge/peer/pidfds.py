# What the kernel says about the process behind a pidfd. It does not need /proc/PID, which ProtectProc= can hide.
from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

INFO = struct.Struct("QQ12I")  # struct pidfd_info: mask, cgroup id, and pid, tgid, ppid, ruid, rgid, euid, egid, …
MASK_AND_CGROUP = struct.Struct("QQ")  # how it begins
PIDFD_GET_INFO = 3 << 30 | INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
PIDFD_INFO_CGROUPID = 1 << 2
EUID, EGID = 7, 8
ASKED = INFO.pack(PIDFD_INFO_CGROUPID, *[0] * 13)
_info = bytearray(INFO.size)  # the kernel writes into it, which is faster than into new bytes


def cgroup_of(pidfd: int) -> int | None:
    """The id of the process's cgroup; None if the kernel does not give it (before Linux 6.13). For one thread."""
    _info[:] = ASKED
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, _info)
    except OSError:
        return None
    mask, cgroup = MASK_AND_CGROUP.unpack_from(_info)
    return cgroup if mask & PIDFD_INFO_CGROUPID else None


def ids_of(pidfd: int) -> tuple[int, int]:
    """The process's effective user and group now; SO_PEERCRED has those of the time when it connected. Raises
    OSError."""
    found = INFO.unpack(fcntl.ioctl(pidfd, PIDFD_GET_INFO, ASKED))
    return found[EUID], found[EGID]


def is_foreign(pidfd: int) -> bool:
    """Whether the process is in another pid namespace: the kernel lists its pid in each of its namespaces (proc(5),
    fdinfo of a pidfd). Raises OSError if it has ended."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    if int(fields["Pid"]) < 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return int(fields["Pid"]) == 0 or len(fields["NSpid"].split()) != 1
