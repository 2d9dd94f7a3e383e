# Which file a process executes: its path, where that leads to the same file here, and the SHA-256 of its bytes.
# A path is what the process's own mounts say, an mtime what its user says: device, inode and ctime are the kernel's.
from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from brokerd.edge.inodes import FUSE, NEAR, Inode, inode, kind, known_of

LONGEST = 256 * 1024 * 1024  # bytes of a file that is hashed
SETTLED = 3.0  # seconds after which a ctime is another one when the file changes again
BELIEVED = 5.0  # seconds for which a path is taken to lead here to what it led to when that was looked at
MOST = 1_000  # files that are remembered
PINNED = os.O_PATH | os.O_CLOEXEC
NEEDS = "could not be read: for another user's process brokerd needs CAP_SYS_PTRACE, see docs/configuration.md"
ON_FUSE = "is not believed: it lies on a FUSE file system, which shows everybody something else"


class Program(NamedTuple):
    """What a process executes; `unread` says by selector why something is missing; `hashed`: bytes that were read."""

    exe: str | None = None
    sha256: str | None = None
    unread: Mapping[str, str] = {}
    hashed: int = 0


Key = TypeVar("Key")
Value = TypeVar("Value")
_hashes: dict[Inode, str] = {}
_near: dict[str, None] = {}  # paths on file systems that answer from memory
_known: dict[tuple[str, tuple[int, ...]], tuple[Program, float]] = {}  # by path and inode; until when it is believed


class _Unread(Exception):
    pass


def glance(pid: int, *, hashed: bool) -> Program | None:
    """What `read` found, by nothing that could block: the process executes the file that was read then, unchanged and
    on the same mount, and shows the same path. None: it has to be read."""
    link = f"/proc/{pid}/exe"
    try:
        path = os.readlink(link)  # noqa: PTH115 - pathlib's costs more than all the rest
    except OSError as error:
        return _unreadable(pid, error)
    if path not in _near or (file := known_of(link)) is None or (known := _known.get((path, file))) is None:
        return None
    program, until = known
    return program if time.monotonic() < until and (program.sha256 or not hashed) else None


def read(pid: int, *, hashed: bool) -> Program:
    """Path and hash of what a process executes."""
    link = f"/proc/{pid}/exe"
    unread: dict[str, str] = {}
    exe, sha256, size = None, None, 0
    with ExitStack() as opened:
        try:
            opened.callback(os.close, executed := os.open(link, PINNED))
            file = inode(executed)
        except OSError as error:
            return _unreadable(pid, error)
        if (on := _kind(executed)) == FUSE:
            return Program(unread=dict.fromkeys(("exe", "sha256"), ON_FUSE))
        if hashed:
            size = 0 if file in _hashes or file.size > LONGEST else file.size
            try:
                sha256 = _hash(executed, file)
            except _Unread as error:
                unread["sha256"] = str(error)
        try:
            exe = _path(link, file)
        except _Unread as error:
            unread["exe"] = str(error)
        else:
            if on in NEAR:
                _remember(_near, exe, None)
                _remember(_known, (exe, file), (Program(exe, _hashes.get(file)), time.monotonic() + BELIEVED))
    return Program(exe, sha256, unread, size)


def _unreadable(pid: int, error: OSError) -> Program:
    hidden = isinstance(error, PermissionError) or not Path(f"/proc/{pid}").exists()  # by ProtectProc=
    words = NEEDS if hidden else f"could not be read: {error.strerror}"
    return Program(unread={"exe": words, "sha256": words})


def _kind(file: int) -> int:
    try:
        return kind(file)
    except OSError:
        return FUSE  # as good as: nobody can tell


def _path(link: str, file: Inode) -> str:
    """The path of the file, if it leads to it here. Raises _Unread."""
    try:
        path = str(Path(link).readlink())
        path.encode()
        here = os.open(path, PINNED)
        try:
            if inode(here).is_file(file):
                return path
        finally:
            os.close(here)
    except UnicodeEncodeError:
        raise _Unread("is not believed: its path is not UTF-8") from None
    except OSError:
        pass
    raise _Unread("is not believed: its path leads to another file here, or to none (replaced, or other mounts)")


def _hash(executed: int, file: Inode) -> str:
    """Raises _Unread."""
    if (known := _hashes.get(file)) is not None:
        return known
    if file.size > LONGEST:
        raise _Unread(f"was not read: the executable has more than {LONGEST >> 20} MiB")
    try:
        with Path(f"/proc/self/fd/{executed}").open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
            after = inode(opened.fileno())
    except OSError as error:
        raise _Unread(f"could not be read: the executable: {error.strerror}") from None
    if after != file:
        raise _Unread("could not be read: the executable changed meanwhile")
    if time.time() - file.ctime > SETTLED:
        _remember(_hashes, file, found)
    return found


def _remember(there: dict[Key, Value], key: Key, value: Value) -> None:
    if len(there) >= MOST:
        there.clear()
    there[key] = value
