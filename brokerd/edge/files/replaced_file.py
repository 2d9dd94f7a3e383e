# Replaces a file in one step: the new one is written beside it under another name, synced and renamed, so that a reader
# finds the old one or the new one, never a part. A link at the path is replaced, not followed. Blocking.
from __future__ import annotations

import contextlib
import grp
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from brokerd.core.file_remedies import change
from brokerd.edge.files.as_owner import OwnerUnclear, owner_of

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LONGEST_NAME = 255  # bytes, NAME_MAX
SUFFIX = 8  # random characters


def replace(path: Path, data: bytes, mode: int, group: str | None, before: Callable[[], None] = lambda: None) -> int:
    """Write the file durably; returns its inode. `before` runs when all is written but the name. Raises OSError."""
    with _folder_of(path) as folder:
        beside = f"{_beginning(path)}{secrets.token_hex(SUFFIX // 2)}"
        descriptor = os.open(beside, NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if group is not None:
                    os.fchown(descriptor, -1, gid_of(group))
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                inode = os.fstat(descriptor).st_ino
            before()
            os.rename(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise
        os.fsync(folder)
        return inode


def remove(path: Path) -> None:
    """Remove the file, or the link, durably. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _folder_of(path, trusted=True) as folder:
        os.unlink(path.name, dir_fd=folder)
        os.fsync(folder)


def sweep(paths: Iterable[Path]) -> None:
    """Remove what a process that was killed has left beside these files."""
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add(_beginning(path))
    for parent, beginnings in by_folder.items():
        with contextlib.suppress(OSError), _folder_of(parent / "any", trusted=True) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - a descriptor
                if name[:-SUFFIX] in beginnings:
                    with contextlib.suppress(OSError):  # a folder that somebody else has put there
                        os.unlink(name, dir_fd=folder)


def inode_of(path: Path) -> int | None:
    """The inode of the file or link; None: there is none, or we may not look."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def holds(path: Path, data: bytes, mode: int, group: str | None) -> bool:
    """Whether the file is already just as `replace` would make it."""
    try:
        with os.fdopen(os.open(path, OLD), "rb") as file:
            found = os.fstat(file.fileno())
            as_wanted = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
            as_wanted = as_wanted and found.st_uid == os.geteuid() and found.st_nlink == 1
            as_wanted = as_wanted and (group is None or found.st_gid == gid_of(group))
            return as_wanted and file.read(len(data) + 1) == data
    except OSError:
        return False


def fault_of_folder(folder: Path) -> str | None:
    """Why nothing secret may be written there: somebody else could replace the file, or the folder. None: it is safe,
    or does not exist yet. Raises OSError."""
    us, elsewhere = os.geteuid(), "use a folder that only root and you can change"
    with contextlib.suppress(FileNotFoundError):
        found = folder.stat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{folder} is not a folder; {elsewhere}"
        if (fault := _open_for_others(folder, found)) is not None:
            return fault
    try:
        owner = owner_of(folder)
    except OwnerUnclear as error:
        return str(error)
    if owner is not None and owner.uid != us:
        return f"{folder}: what is found there is decided by the user {owner.uid}; {elsewhere}"
    return None


def gid_of(group: str) -> int:
    """Raises OSError."""
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(f"there is no group {group} on this machine; write one that exists") from None


def _open_for_others(folder: Path, found: os.stat_result) -> str | None:
    mode, owner = found.st_mode, found.st_uid
    if owner not in (0, os.geteuid()):
        return f"{folder} belongs to the user {owner}, who could replace the file; use a folder of your own"
    if mode & 0o022 and not (mode & stat.S_ISVTX and owner == os.geteuid()):
        remedy = change("chmod go-w", os.path.realpath(folder), mode, "use a folder that only root and you can change")
        return f"{folder} can be written by others, who could replace the file; {remedy}"
    return None


@contextlib.contextmanager
def _folder_of(path: Path, *, trusted: bool = False) -> Iterator[int]:
    """The folder, opened and then checked, so that nobody can exchange it in between. `trusted`: not checked, because
    nothing is written."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not trusted and (fault := _open_for_others(path.parent, os.fstat(folder))) is not None:
            raise OSError(fault)
        yield folder
    finally:
        os.close(folder)


def _beginning(path: Path) -> str:
    """How the names of files beside it begin. They begin with a dot, so that no `*.conf` finds them."""
    room = LONGEST_NAME - SUFFIX - len("..brokerd-")
    return f".{os.fsdecode(os.fsencode(path.name)[:room])}.brokerd-"
