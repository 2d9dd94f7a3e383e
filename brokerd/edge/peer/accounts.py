# Users and groups by name and number, and what file modes allow them. ownership.py says who should own which file.
from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class UserAccount:
    """A user and its groups; `group` is its primary group."""

    name: str
    uid: int
    group: str
    gids: frozenset[int]

    def first_closed(self, path: Path, mode: int = stat.S_IROTH) -> Path | None:
        """The first folder on the path to a file that the user may not enter, or the file if the user may not open it.
        None: the user may open it. Raises OSError."""
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


def account(user: str | int) -> UserAccount | None:
    """None: this machine has no such user."""
    try:
        found = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None
    return UserAccount(
        found.pw_name, found.pw_uid, group_name(found.pw_gid), frozenset(os.getgrouplist(found.pw_name, found.pw_gid))
    )


def user_id(name: str) -> int | None:
    """None: this machine has no such user."""
    found = account(name)
    return None if found is None else found.uid


def group_id(name: str) -> int | None:
    """None: this machine has no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def is_group(name: str) -> bool:
    return group_id(name) is not None


def account_of(uid: int) -> UserAccount:
    """The user with this number, even if it has no name (DynamicUser= creates such users)."""
    return account(uid) or UserAccount(str(uid), uid, str(uid), frozenset({uid}))


def ourselves() -> UserAccount:
    uid = os.geteuid()
    found = account(uid)
    return UserAccount(
        found.name if found else str(uid), uid, group_name(os.getegid()), frozenset((os.getegid(), *os.getgroups()))
    )


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def members(gid: int) -> tuple[str, ...]:
    """The users that are listed as members; users whose primary group it is are not listed."""
    try:
        return tuple(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return ()
