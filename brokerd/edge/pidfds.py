# What the kernel says of the process behind a pidfd, without /proc/PID: which ProtectProc= hides.
from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

INFO = struct.Struct("QQ12I")  # struct pidfd_info: mask, cgroup id, and pid, tgid, ppid, ruid, rgid, euid, egid, …
PIDFD_GET_INFO = 3 << 30 | INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
PIDFD_INFO_CGROUPID = 1 << 2
EUID, EGID = 7, 8
ASKED = INFO.pack(PIDFD_INFO_CGROUPID, *[0] * 13)


def cgroup_of(pidfd: int) -> int | None:
    """The id of the process's cgroup; None where the kernel does not say it (before Linux 6.13)."""
    try:
        mask, cgroup, *_ = INFO.unpack(fcntl.ioctl(pidfd, PIDFD_GET_INFO, ASKED))
    except OSError:
        return None
    return cgroup if mask & PIDFD_INFO_CGROUPID else None


def ids_of(pidfd: int) -> tuple[int, int]:
    """Its effective user and group now; who connects has others to show (SO_PEERCRED). Raises OSError."""
    found = INFO.unpack(fcntl.ioctl(pidfd, PIDFD_GET_INFO, ASKED))
    return found[EUID], found[EGID]


def is_foreign(pidfd: int) -> bool:
    """Whether it lives in another pid namespace: the kernel names a number for each that it has (proc(5), fdinfo of a
    pidfd). Raises OSError where it is gone."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    if int(fields["Pid"]) < 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return int(fields["Pid"]) == 0 or len(fields["NSpid"].split()) != 1
