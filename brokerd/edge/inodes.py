# Which file something is, and on what kind of file system; and the same from the kernel's memory alone, because a file
# system that has to be asked may never answer (law 13).
from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

FUSE = 0x65735546  # statfs(2): a file system that a user makes, and that tells each reader something else
NEAR = frozenset(  # file systems that have the attributes of open files in memory: ext4, xfs, btrfs, f2fs, zfs, tmpfs,
    (0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0x01021994, 0x794C7630, 0x73717368, 0xE0F5E1E2)
)  # overlay, squashfs, erofs
WANTED = 0x7FF | 0x1000 | 0x4000  # the basic ones, and the mount's number: since Linux 6.8 one that is never used again
STATX = struct.Struct("=32xQQ48xqI28xIIQ104x")
AT_FDCWD, AT_EMPTY_PATH, AT_STATX_DONT_SYNC = -100, 0x1000, 0x4000


class Inode(NamedTuple):
    """A file in one state, as statx(2) describes it. Its owner can set an mtime, not a ctime."""

    number: int
    size: int
    ctime: int  # seconds, and
    ctime_ns: int  # nanoseconds
    device: int
    minor: int
    mount: int  # on which it was found

    def is_file(self, other: Inode) -> bool:
        """Whether it is the same one, on whatever mount."""
        return self[:-1] == other[:-1]


def inode(file: int) -> Inode:
    """Of an open file. Raises OSError."""
    found = ctypes.create_string_buffer(STATX.size)
    _check(_libc.statx(file, b"", AT_EMPTY_PATH, WANTED, found))
    return Inode._make(STATX.unpack(found))


def kind(file: int) -> int:
    """Of file system (statfs(2), f_type). Raises OSError."""
    told = (ctypes.c_long * 32)()  # struct statfs: f_type comes first, the rest is smaller than this
    _check(_libc.fstatfs(file, told))
    return told[0]


def known_of(link: str) -> tuple[int, ...] | None:
    """What the kernel has in memory of the file behind a link of /proc: an Inode's values. It goes there without a
    lookup, and asks nothing of a file system that is near, or that heeds AT_STATX_DONT_SYNC as FUSE and NFS do."""
    if _quick.statx(AT_FDCWD, link.encode(), AT_STATX_DONT_SYNC, WANTED, _found):
        return None
    return STATX.unpack(_found)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_libc = ctypes.CDLL(None, use_errno=True)
_quick = ctypes.PyDLL(None)  # lets no other thread run meanwhile: what is called by it takes microseconds
_found = ctypes.create_string_buffer(STATX.size)
