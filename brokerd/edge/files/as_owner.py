# Root acts as the user who decides what a path leads to: this file finds that user, and does the work in a child
# process with only that user's rights. Otherwise a user's link could lead root to another file, or root could run a
# user's command.
from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brokerd.edge.peer.accounts import account

LINKS = 40  # symbolic links on one path, the kernel's limit
OTHERS = 0o002
GROUP_AND_OTHERS = 0o022
WHOLE_MAP = "4294967295"  # size of the uid map of a user namespace that has every uid
UNMAPPED = 65_534  # the owner that is shown for files of users outside of the namespace
READ = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class OwnerUnclear(Exception):
    """There is no single user to act as. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    uid: int
    gid: int


def owner_of(path: Path, *, writable: int = OTHERS, make: bool = False) -> Owner | None:
    """The one user besides root who decides what is found at a path: the owner of the file, or of a link or folder on
    the path. None: only root decides. Everything is opened before it is checked, so nobody can replace it in between. A
    missing file is accepted if only root could create it; with `make`, root creates missing folders inside its own
    folders. `writable`: mode bits that no folder of root may have, because they let other users decide. Raises OSError,
    OwnerUnclear."""
    found = _PathWalk(writable)
    with contextlib.closing(found):
        found.walk(Path.cwd() / path, make=make)
    if len(found.owners) > 1:
        names = " and ".join(sorted(_name(uid) for uid in found.owners))
        raise OwnerUnclear(
            f"{path}: what is found there is decided by {names}; run this command as the user who owns the file"
        )
    return next((Owner(uid, gid) for uid, gid in found.owners.items()), None)


class _PathWalk:
    """Follows a path from the root folder, one name at a time."""

    def __init__(self, writable: int) -> None:
        self.owners: dict[int, int] = {}  # uid -> gid
        self._writable = writable
        self._at = os.open("/", READ | os.O_DIRECTORY)
        self._ignored = {0, UNMAPPED} if _lacks_uids() else {0}

    def close(self) -> None:
        os.close(self._at)

    def walk(self, path: Path, *, make: bool) -> None:
        names, links, walked = list(reversed(path.parts)), 0, path
        while names:
            name = names.pop()
            file = self._open(name, make=make)
            if file is None:
                self._note_missing(walked)
                return
            look = os.fstat(file)
            self._note(look, walked)
            if not stat.S_ISLNK(look.st_mode):
                os.close(self._at)
                self._at = file
                continue
            target = os.readlink("", dir_fd=file)
            os.close(file)
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            names += reversed(Path(target).parts)

    def _open(self, name: str, *, make: bool) -> int | None:
        """A descriptor of the file with that name; None if there is none and none was made."""
        for makes in (make and not self.owners, False):
            try:
                return os.open(name, READ, dir_fd=self._at)
            except FileNotFoundError:
                if not makes:
                    return None
                with contextlib.suppress(FileExistsError):  # another process was faster; it is checked like all others
                    os.mkdir(name, 0o700, dir_fd=self._at)
        return None

    def _note(self, look: os.stat_result, path: Path) -> None:
        if look.st_uid not in self._ignored:
            self.owners.setdefault(look.st_uid, look.st_gid)
        elif stat.S_ISDIR(look.st_mode) and look.st_mode & self._writable and not look.st_mode & stat.S_ISVTX:
            words = "a folder on this path can be written by others than root, who could replace what is in it"
            raise OwnerUnclear(f"{path}: {words}; move the file to a folder that only its owner can write")

    def _note_missing(self, path: Path) -> None:
        """Where other users can create the missing file meanwhile, as in /tmp, root would work on their file."""
        if not self.owners and os.fstat(self._at).st_mode & self._writable:
            words = "it does not exist, and others than root could create it"
            raise OwnerUnclear(f"{path}: {words}; check the path, or create the file and try again")


def act_as(owner: Owner | None, work: Callable[[], Any]) -> Any:
    """Run `work` as the owner, and return its result, which must be a JSON value. If we are root, it runs in a child
    process that takes uid, gid and groups of that user and cannot go back. The user cannot trace the child, because the
    kernel keeps it undumpable after the change. Raises OSError if the child ended without a result; if no child is
    needed, whatever `work` raises."""
    if owner is None or os.geteuid() != 0:
        return work()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    answer, output = os.pipe()
    child = os.fork()
    if child == 0:
        _run_in_child(owner, work, output)
    os.close(output)
    with os.fdopen(answer, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    if not data:
        raise ChildProcessError(errno.ECHILD, f"the process that acted as {_name(owner.uid)} ended early")
    return json.loads(data)


def _run_in_child(owner: Owner, work: Callable[[], Any], output: int) -> None:
    """It does not return."""
    try:
        become(owner)
        data = json.dumps(work()).encode()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # the reader has gone, which `work` has reported
                    stream.flush()
        while data:
            data = data[os.write(output, data) :]
    finally:
        os._exit(0)


def become(owner: Owner) -> None:
    """Turn this process into one of the owner; it cannot go back. Raises OSError."""
    try:
        known = pwd.getpwuid(owner.uid)
        gid, groups = known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:  # a user without a name (DynamicUser= creates such users)
        gid, groups = owner.gid, [owner.gid]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)


def _lacks_uids() -> bool:
    """Whether this process is in a user namespace that lacks some uids."""
    try:
        return Path("/proc/self/uid_map").read_text().split()[2] != WHOLE_MAP
    except (OSError, IndexError):
        return False


def _name(uid: int) -> str:
    known = account(uid)
    return known.name if known else f"the user {uid}"
