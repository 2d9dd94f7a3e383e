# The file system of a folder: its type, its free space, and whether it can be written. The check leaves no file behind.
from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")  # proc_pid_mountinfo(5)
CANNOT_TRY = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT})  # open(2), O_TMPFILE
PAGE = bytes(4096)


@dataclass(frozen=True, slots=True)
class Disk:
    """`free`: bytes that users without privileges can write. `inodes`: how many files can be created."""

    kind: str
    mounted_on: str
    free: int
    inodes: int
    read_only: bool

    @classmethod
    def under(cls, folder: Path) -> Disk:
        """Raises OSError."""
        found, device = os.statvfs(folder), folder.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = [line.split() for line in MOUNTS.read_text().splitlines()]
        mine = [line for line in lines if line[2] == number] or [line for line in lines if line[4] == "/"]
        on = max(mine, key=lambda line: len(line[4]) if folder.resolve().is_relative_to(line[4]) else 0)
        inodes = found.f_favail if found.f_files else 1 << 31  # some file systems do not count them
        read_only = bool(found.f_flag & os.ST_RDONLY)
        return cls(on[on.index("-") + 1], on[4], found.f_bavail * found.f_frsize, inodes, read_only)

    def refuses(self, folder: Path) -> int | None:
        """Try a durable write in the folder, to a file without a name. Returns its errno, or None if it works."""
        try:
            descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return None if error.errno in CANNOT_TRY else error.errno
        try:
            os.write(descriptor, PAGE)
            os.fsync(descriptor)
        except OSError as error:
            return error.errno
        finally:
            os.close(descriptor)
        return None
