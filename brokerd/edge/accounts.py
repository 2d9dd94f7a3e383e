# Users and groups by name and number, and what file modes let them do. Whose files should be whose is not known here.
from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user with his groups; `group` is his own."""

    name: str
    uid: int
    group: str
    gids: frozenset[int]

    def finds_closed(self, path: Path, mode: int = stat.S_IROTH) -> Path | None:
        """The first of the folders on the way to a file, or the file, whose mode keeps the user out. Raises OSError."""
        if self.uid == 0:
            return None
        for folder in reversed(path.resolve().parents):
            if not self._may(folder.stat(), stat.S_IXOTH):
                return folder
        return None if self._may(path.stat(), mode) else path.resolve()

    def _may(self, found: os.stat_result, bit: int) -> bool:
        if found.st_uid == self.uid:
            bit <<= 6
        elif found.st_gid in self.gids:
            bit <<= 3
        return bool(found.st_mode & bit)


def account(user: str | int) -> Account | None:
    """None: there is no such user."""
    try:
        found = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None
    return Account(
        found.pw_name, found.pw_uid, group_name(found.pw_gid), frozenset(os.getgrouplist(found.pw_name, found.pw_gid))
    )


def is_user(name: str) -> bool:
    return account(name) is not None


def is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def numbered(uid: int) -> Account:
    """Also a user without a name, as DynamicUser= makes them."""
    return account(uid) or Account(str(uid), uid, str(uid), frozenset({uid}))


def ourselves() -> Account:
    uid = os.geteuid()
    found = account(uid)
    return Account(
        found.name if found else str(uid), uid, group_name(os.getegid()), frozenset((os.getegid(), *os.getgroups()))
    )


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def members(gid: int) -> tuple[str, ...]:
    """Who was put into the group, besides those whose own it is."""
    try:
        return tuple(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return ()
