# The identity of a file, and the type of its file system. `cached_inode` answers from the kernel's memory alone,
# because a file system may never answer (law 13).
from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

FUSE = 0x65735546  # statfs(2): a file system that a user provides, and that can show each reader another file
IN_MEMORY = frozenset(  # file systems with the attributes of open files in memory: ext4, xfs, btrfs, f2fs, zfs, tmpfs,
    (0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0x01021994, 0x794C7630, 0x73717368, 0xE0F5E1E2)
)  # overlay, squashfs, erofs
MASK = 0x7FF | 0x1000 | 0x4000  # the basic fields, and the mount's number: since Linux 6.8 it is never used again
STATX = struct.Struct("=32xQQ48xqI28xIIQ104x")
AT_FDCWD, AT_EMPTY_PATH, AT_STATX_DONT_SYNC = -100, 0x1000, 0x4000


class Inode(NamedTuple):
    """A file in one state, as statx(2) describes it. Its owner can set its mtime, but not its ctime."""

    number: int
    size: int
    ctime: int  # seconds, and
    ctime_ns: int  # nanoseconds
    device: int
    minor: int
    mount: int  # through which it was found

    def is_file(self, other: Inode) -> bool:
        """Whether it is the same unchanged file, through any mount."""
        return self[:-1] == other[:-1]


def inode(file: int) -> Inode:
    """The inode of an open file. Raises OSError."""
    found = ctypes.create_string_buffer(STATX.size)
    _check(_libc.statx(file, b"", AT_EMPTY_PATH, MASK, found))
    return Inode._make(STATX.unpack(found))


def file_system(file: int) -> int:
    """The type of the file system (f_type of statfs(2)) of an open file. Raises OSError."""
    found = (ctypes.c_long * 32)()  # struct statfs: f_type is its first field, and it is smaller than this array
    _check(_libc.fstatfs(file, found))
    return found[0]


def cached_inode(link: bytes) -> tuple[int, ...] | None:
    """The values of an Inode, for the file behind a link in /proc, from the kernel's memory. It needs no path lookup,
    and sends no request to a file system in IN_MEMORY, nor to one that obeys AT_STATX_DONT_SYNC, as FUSE and NFS do."""
    if _statx(AT_FDCWD, link, AT_STATX_DONT_SYNC, MASK, _found):
        return None
    return STATX.unpack(_found)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_libc = ctypes.CDLL(None, use_errno=True)
_statx = ctypes.PyDLL(None).statx  # keeps the GIL: a call takes microseconds
_found = ctypes.create_string_buffer(STATX.size)
