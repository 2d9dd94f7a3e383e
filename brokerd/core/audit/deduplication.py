# Counts audit entries that repeat within a minute: the first one is written at once, the others are counted and become
# one entry at the end of the minute. Pure: time is an argument.
from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

WINDOW = 60.0  # seconds
CLIENTS = 16  # of one caller
MOST = 16_384  # different entries within a minute; if there are more, the oldest minute ends early

Entry = Mapping[str, object]


@dataclass(slots=True, eq=False)
class Counted:
    """An entry, which came `again` so many times, first at `first` and last at `last`. `is_open`: its minute is not
    over."""

    series: str
    entry: Entry
    who: Hashable
    since: float
    again: int = 0
    first: float = 0.0
    last: float = 0.0
    is_open: bool = True

    def count(self, now: float) -> None:
        """The same entry came again."""
        if not self.again:
            self.first = now
        self.again += 1
        self.last = now

    def rest(self) -> Entry | None:
        """Everything but the first time, as one entry."""
        if not self.again:
            return None
        first, last = round(self.first, 3), round(self.last, 3)
        return {**self.entry, "time": last, "count": self.again, "first": first, "last": last}


class Deduplication:
    """The entries of the last minute, the oldest first."""

    def __init__(self) -> None:
        self._counted: dict[Hashable, Counted] = {}
        self._different: dict[Hashable, int] = {}

    def again(self, key: Hashable, now: float) -> Counted | None:
        """The entry of that key, counted once more; None: there was none within the minute."""
        counted = self._counted.get(key)
        if counted is not None:
            counted.count(now)
        return counted

    def different(self, who: Hashable) -> int:
        """How many different entries there were about them within the minute."""
        return self._different.get(who, 0)

    def begin(self, key: Hashable, counted: Counted) -> None:
        """An entry came for the first time."""
        self._counted[key] = counted
        self._different[counted.who] = self._different.get(counted.who, 0) + 1

    def ended(self, now: float) -> Iterator[Counted]:
        """Forgets and returns the entries whose minute is over, and the oldest ones if there are too many."""
        while self._counted:
            key, counted = next(iter(self._counted.items()))
            if counted.since + WINDOW > now and len(self._counted) <= MOST:
                return
            del self._counted[key]
            counted.is_open = False
            self._different[counted.who] -= 1
            if not self._different[counted.who]:
                del self._different[counted.who]
            yield counted


class Clients:
    """Whose entries are counted apart, of what a caller says of its own clients: CLIENTS of them within a minute. A
    caller could invent more, and so fill the log."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, dict[Hashable, float]] = {}  # by caller: its clients, and when they were seen last

    def account(self, caller: Hashable, client: Hashable, now: float) -> Hashable:
        """The client; None: it shares an account with others."""
        seen = self._seen.setdefault(caller, {})
        if client not in seen and len(seen) >= CLIENTS:
            for each in [each for each, at in seen.items() if at <= now - WINDOW]:
                del seen[each]
            if len(seen) >= CLIENTS:
                return None
        seen[client] = now
        return client
