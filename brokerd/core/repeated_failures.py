# Which failures get a line in the log: the first of each grant, a new reason, and then one line for all that fail
# alike, at growing distances. A provider that is down for a day is a handful of lines. Pure: no clock, no log.
from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from brokerd.core.grant.history import alike
from brokerd.core.timing.moment import Moment, seconds_until

FIRST_GAP = 600.0  # seconds until the first line that sums up
GROWTH = 3  # each further gap is so many times the one before,
LONGEST_GAP = 86_400.0  # and not longer than this, in seconds
MOST_CHANGES = 5  # new reasons of one grant that get a line of their own until it works again
MOST = 100_000  # grants that are remembered
LINES, MINUTE = 30, 60.0  # of one user within so many seconds
MOST_USERS = 10_000  # that are remembered


class Failing(NamedTuple):
    """Since when, and how often, something failed. `is_first`: nothing was said so far. `sums_up`: it is about all
    `grants` that fail alike."""

    since: Moment
    tries: int
    grants: int = 1
    is_first: bool = False
    sums_up: bool = False


def known_to_fail(since: Moment | None, tries: int) -> Failing | None:
    """Of a grant, as its record says it."""
    return Failing(since, tries) if since is not None and tries else None


@dataclass(slots=True)
class _Group:
    """What fails alike at one provider."""

    since: Moment
    said: Moment
    gap: float = FIRST_GAP
    tries: int = 0
    members: set[Hashable] = field(default_factory=set)


@dataclass(slots=True)
class _Member:
    since: Moment
    group: tuple[str, str]
    tries: int = 0
    changes: int = 0


class LineBudget:
    """So many lines of each user within a minute: what a caller does in a loop does not fill the log."""

    def __init__(self) -> None:
        self._users: dict[int, tuple[float, int, int]] = {}  # by uid: since when, lines, and what was left out

    def left_out(self, uid: int, now: float) -> int | None:
        """How many lines were left out since the last one, if this one may be written; None: it may not."""
        since, lines, left_out = self._users.get(uid, (now, 0, 0))
        if now - since >= MINUTE:
            since, lines = now, 0
        if lines >= LINES:
            self._users[uid] = since, lines, left_out + 1
            return None
        if len(self._users) >= MOST_USERS:
            self._users.clear()
        self._users[uid] = since, lines + 1, 0
        return left_out


class RepeatedFailures:
    """`who` is what fails: a grant, or one of its downscoped tokens."""

    def __init__(self) -> None:
        self._members: dict[Hashable, _Member] = {}
        self._groups: dict[tuple[str, str], _Group] = {}

    def failed(
        self, who: Hashable, provider: str, reason: str, now: Moment, known: Failing | None = None
    ) -> Failing | None:
        """One more failure: what the log says of it, or None if it says nothing. `known`: since when it fails and how
        often it did, if somebody knows more than this log."""
        kind, member = (provider, alike(reason)), self._members.get(who)
        is_first = member is None
        if member is None:
            if len(self._members) >= MOST:
                self.worked(next(iter(self._members)))
            member = self._members[who] = _Member(*((known.since, kind, known.tries - 1) if known else (now, kind)))
        is_new = is_first or (kind != member.group and member.changes < MOST_CHANGES)
        if is_new and not is_first:
            member.changes += 1
            self._leave(who, member)
            member.group = kind
        member.tries += 1
        group = self._groups.setdefault(member.group, _Group(member.since, now))
        group.members.add(who)
        group.tries += 1
        if is_new:
            return Failing(member.since, member.tries, is_first=is_first)
        if -seconds_until(group.said, now) < group.gap:
            return None
        group.said, group.gap = now, min(LONGEST_GAP, group.gap * GROWTH)
        return Failing(group.since, group.tries, len(group.members), sums_up=True)

    def worked(self, who: Hashable) -> Failing | None:
        """It works: since when it had failed; None: it had not."""
        if (member := self._members.pop(who, None)) is None:
            return None
        self._leave(who, member)
        return Failing(member.since, member.tries)

    def _leave(self, who: Hashable, member: _Member) -> None:
        group = self._groups[member.group]
        group.members.discard(who)
        if not group.members:
            del self._groups[member.group]
