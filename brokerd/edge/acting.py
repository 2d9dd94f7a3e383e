# Root acts as a user: finds out which user decides what a path leads to, and does the work in a child process that has
# that user's rights alone. Otherwise a user's link could lead root elsewhere, or root could run a user's command.
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

from brokerd.edge.accounts import account

LINKS = 40  # on one way, as the kernel has it
OTHERS = 0o002
GROUP_AND_OTHERS = 0o022
WHOLE_MAP = "4294967295"  # uids of a user namespace that lacks none
UNMAPPED = 65_534  # an owner from outside of it
READ = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NotOnes(Exception):
    """It cannot be said in whose place to act. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    uid: int
    gid: int


def owner_of(path: Path, *, writable: int = OTHERS, make: bool = False) -> Owner | None:
    """The one user besides root who decides what is found at a path: who owns it, a link or a folder on the way. None:
    root alone. Everything is opened first and then looked at, so nobody can exchange it in between. What is not there
    decides nothing where root alone could put it there; with `make` root makes it, in folders of its own. `writable`:
    mode bits that no folder of root may have, for whoever they let in decides too. Raises OSError, NotOnes."""
    found = _Way(writable)
    with contextlib.closing(found):
        found.walk(Path.cwd() / path, make=make)
    if len(found.owners) > 1:
        names = " and ".join(sorted(_name(uid) for uid in found.owners))
        raise NotOnes(f"{path}: what is on the way there belongs to {names}; be the user whose it is and try again")
    return next((Owner(uid, gid) for uid, gid in found.owners.items()), None)


class _Way:
    """A walk from the root, one name at a time."""

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
        """What has that name; None where there is nothing, and nothing was made."""
        for makes in (make and not self.owners, False):
            try:
                return os.open(name, READ, dir_fd=self._at)
            except FileNotFoundError:
                if not makes:
                    return None
                with contextlib.suppress(FileExistsError):  # somebody was faster: it is looked at like all else
                    os.mkdir(name, 0o700, dir_fd=self._at)
        return None

    def _note(self, look: os.stat_result, path: Path) -> None:
        if look.st_uid not in self._ignored:
            self.owners.setdefault(look.st_uid, look.st_gid)
        elif stat.S_ISDIR(look.st_mode) and look.st_mode & self._writable and not look.st_mode & stat.S_ISVTX:
            words = "a folder on the way there can be written by others than root, who decide what is found in it"
            raise NotOnes(f"{path}: {words}; move it to one that only its owner can write")

    def _note_missing(self, path: Path) -> None:
        """Where others can put it while we look elsewhere, as in /tmp, root's work would find what is theirs."""
        if not self.owners and os.fstat(self._at).st_mode & self._writable:
            words = "it is not there, and others than root could put it there"
            raise NotOnes(f"{path}: {words}; is the path right? Else make it, and try again")


def act_as(owner: Owner | None, work: Callable[[], Any]) -> Any:
    """What `work` returns, which has to be fit for JSON. As root it runs in a child process that is wholly that user:
    uid, gid and groups, for good. The user cannot trace it, because the kernel remembers that it was root's. Raises
    OSError where it ended without an answer, and else what `work` raises where it runs here."""
    if owner is None or os.geteuid() != 0:
        return work()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        _be(owner, work, told)
    os.close(told)
    with os.fdopen(answer, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    if not data:
        raise ChildProcessError(errno.ECHILD, f"the process that acted as {_name(owner.uid)} ended early")
    return json.loads(data)


def _be(owner: Owner, work: Callable[[], Any], told: int) -> None:
    """The child. It does not return."""
    try:
        become(owner)
        data = json.dumps(work()).encode()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # who reads it has gone, which `work` has said
                    stream.flush()
        while data:
            data = data[os.write(told, data) :]
    finally:
        os._exit(0)


def become(owner: Owner) -> None:
    """This process, for good. Raises OSError."""
    try:
        known = pwd.getpwuid(owner.uid)
        gid, groups = known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:  # a user without a name, as DynamicUser= makes them
        gid, groups = owner.gid, [owner.gid]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)


def _lacks_uids() -> bool:
    """Whether we are in a user namespace where not every owner has a number."""
    try:
        return Path("/proc/self/uid_map").read_text().split()[2] != WHOLE_MAP
    except (OSError, IndexError):
        return False


def _name(uid: int) -> str:
    known = account(uid)
    return known.name if known else f"the user {uid}"
