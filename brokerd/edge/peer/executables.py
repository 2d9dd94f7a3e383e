# Which file a process executes: its path, if that leads to the same file in our mounts, and the SHA-256 of its bytes.
# The process's mounts decide its path, and its user can set an mtime; device, inode and ctime come from the kernel.
from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from brokerd.edge.peer.inodes import FUSE, IN_MEMORY, Inode, cached_inode, file_system, inode

LONGEST = 256 * 1024 * 1024  # bytes of a file that is hashed
SETTLED = 3.0  # seconds: a ctime this old changes when the file is changed again
BELIEVED = 5.0  # seconds for which a path that was checked is taken to lead to the same file
PATH_KNOWN = 0.01  # seconds for which a process is taken to execute the same unchanged file by the same path
MAX_CACHED = 1_000  # files
PINNED = os.O_PATH | os.O_CLOEXEC
NEEDS = "could not be read: for another user's process brokerd needs CAP_SYS_PTRACE, see docs/configuration.md"
ON_FUSE = "is not believed: it lies on a FUSE file system, which can show each reader another file"


class Program(NamedTuple):
    """What a process executes. `unread`: why a value is missing, by selector. `hashed`: how many bytes were read."""

    exe: str | None = None
    sha256: str | None = None
    unread: Mapping[str, str] = {}
    hashed: int = 0


Key = TypeVar("Key")
Value = TypeVar("Value")
_hashes: dict[Inode, str] = {}
_in_memory: dict[str, None] = {}  # paths on file systems that answer from memory
_known: dict[tuple[str, tuple[int, ...]], tuple[Program, float]] = {}  # by path and inode; until when it is believed


class _NotReadable(Exception):
    pass


class Executed:
    """What one process executes, as it was seen last."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._link = f"/proc/{pid}/exe"
        self._encoded = self._link.encode()
        self._seen: tuple[tuple[int, ...], Program, float] | None = None  # the file, and until when its path is known

    def glance(self, *, hashed: bool) -> Program | None:
        """What `read` found before, without anything that could block. That holds if the process executes the same
        unchanged file, on the same mount, by the same path: the file is looked at each time, its path after each
        PATH_KNOWN. None: the file has to be read."""
        now = time.monotonic()
        if self._seen is not None:
            file, program, until = self._seen
            if now < until and cached_inode(self._encoded) == file:
                return program if program.sha256 or not hashed else None
        return self._look(now, hashed=hashed)

    def _look(self, now: float, *, hashed: bool) -> Program | None:
        self._seen = None
        try:
            path = os.readlink(self._link)  # noqa: PTH115 - pathlib's costs more than all the rest
        except OSError as error:
            return _unreadable(self._pid, error)
        if path not in _in_memory or (file := cached_inode(self._encoded)) is None:
            return None
        program, until = _known.get((path, file), (None, 0.0))
        if program is None or now >= until or not (program.sha256 or not hashed):
            return None
        self._seen = file, program, min(until, now + PATH_KNOWN)
        return program


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
        if (on := _file_system(executed)) == FUSE:
            return Program(unread=dict.fromkeys(("exe", "sha256"), ON_FUSE))
        if hashed:
            size = 0 if file in _hashes or file.size > LONGEST else file.size
            try:
                sha256 = _hash(executed, file)
            except _NotReadable as error:
                unread["sha256"] = str(error)
        try:
            exe = _path(link, file)
        except _NotReadable as error:
            unread["exe"] = str(error)
        else:
            if on in IN_MEMORY:
                _remember(_in_memory, exe, None)
                _remember(_known, (exe, file), (Program(exe, _hashes.get(file)), time.monotonic() + BELIEVED))
    return Program(exe, sha256, unread, size)


def _unreadable(pid: int, error: OSError) -> Program:
    hidden = isinstance(error, PermissionError) or not Path(f"/proc/{pid}").exists()  # ProtectProc= hides it
    words = NEEDS if hidden else f"could not be read: {error.strerror}"
    return Program(unread={"exe": words, "sha256": words})


def _file_system(file: int) -> int:
    try:
        return file_system(file)
    except OSError:
        return FUSE  # unknown, so it is trusted as little


def _path(link: str, file: Inode) -> str:
    """The path of the file, if it leads to the same file in our mounts. Raises _NotReadable."""
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
        raise _NotReadable("is not believed: its path is not UTF-8") from None
    except OSError:
        pass
    words = "is not believed: for brokerd its path leads to another file, or to none (replaced, or other mounts)"
    raise _NotReadable(words)


def _hash(executed: int, file: Inode) -> str:
    """Raises _NotReadable."""
    if (known := _hashes.get(file)) is not None:
        return known
    if file.size > LONGEST:
        raise _NotReadable(f"was not read: the executable has more than {LONGEST >> 20} MiB")
    try:
        with Path(f"/proc/self/fd/{executed}").open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
            after = inode(opened.fileno())
    except OSError as error:
        raise _NotReadable(f"could not be read: the executable: {error.strerror}") from None
    if after != file:
        raise _NotReadable("could not be read: the executable changed meanwhile")
    if time.time() - file.ctime > SETTLED:
        _remember(_hashes, file, found)
    return found


def _remember(cache: dict[Key, Value], key: Key, value: Value) -> None:
    if len(cache) >= MAX_CACHED:
        cache.clear()
    cache[key] = value
