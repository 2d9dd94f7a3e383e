# Which file a process executes: its path, where that leads to the same file here, and the SHA-256 of its bytes.
# A path is what the process's own mounts say, an mtime what its user says: device, inode and ctime are the kernel's.
from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import time
from pathlib import Path

LONGEST = 256 * 1024 * 1024  # bytes of a file that is hashed
FUSE = 0x65735546  # statfs(2): a file system that a user makes, and that tells each reader something else
SETTLED = 2_000_000_000  # nanoseconds after which a ctime is another one when the file changes again
NEEDS = "could not be read: for another user's process brokerd needs CAP_SYS_PTRACE, see docs/configuration.md"

Identity = tuple[int, int, int, int]
_hashes: dict[Identity, str] = {}
_libc = ctypes.CDLL(None, use_errno=True)


class _Unread(Exception):
    pass


def read(pid: int, *, hashed: bool) -> tuple[str | None, str | None, dict[str, str]]:
    """Path and hash of what a process executes, and why which could not be read."""
    link = f"/proc/{pid}/exe"
    unread: dict[str, str] = {}
    exe = sha256 = None
    try:
        file = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        words = NEEDS if error.errno in (errno.EACCES, errno.EPERM) else f"could not be read: {error.strerror}"
        return None, None, {"exe": words, "sha256": words}
    try:
        if _is_fuse(file):
            words = "is not believed: it lies on a FUSE file system, which shows everybody something else"
            return None, None, {"exe": words, "sha256": words}
        try:
            exe = _path(link, file)
        except _Unread as error:
            unread["exe"] = str(error)
        if hashed:
            try:
                sha256 = _hash(file)
            except _Unread as error:
                unread["sha256"] = str(error)
    finally:
        os.close(file)
    return exe, sha256, unread


def _path(link: str, file: int) -> str:
    """The path of the open file, if it leads here to the same one. Raises _Unread."""
    try:
        path = str(Path(link).readlink())
        path.encode()
        if _identity(Path(path).stat()) == _identity(os.fstat(file)):
            return path
    except UnicodeEncodeError:
        raise _Unread("is not believed: its path is not UTF-8") from None
    except OSError:
        pass
    raise _Unread("is not believed: its path leads to another file here, or to none (replaced, or other mounts)")


def _hash(file: int) -> str:
    """Raises _Unread."""
    before = os.fstat(file)
    identity = _identity(before)
    if (known := _hashes.get(identity)) is not None:
        return known
    if not stat.S_ISREG(before.st_mode) or before.st_size > LONGEST:
        raise _Unread(f"was not read: the executable has more than {LONGEST >> 20} MiB")
    try:
        with Path(f"/proc/self/fd/{file}").open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
            after = os.fstat(opened.fileno())
    except OSError as error:
        raise _Unread(f"could not be read: the executable: {error.strerror}") from None
    if _identity(after) != identity:
        raise _Unread("could not be read: the executable changed meanwhile")
    if time.time_ns() - after.st_ctime_ns > SETTLED:
        if len(_hashes) >= 1_000:
            _hashes.clear()
        _hashes[identity] = found
    return found


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _is_fuse(file: int) -> bool:
    """Also where nobody can tell."""
    told = (ctypes.c_long * 32)()  # struct statfs: f_type comes first, the rest is smaller than this
    return bool(_libc.fstatfs(file, told)) or told[0] == FUSE
