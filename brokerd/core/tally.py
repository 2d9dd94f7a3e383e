# What happens again and again within a minute: the first time is told at once, the others are counted, and told as one
# at the end of the minute. Pure: time is an argument, except that who counts says when.
from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

WINDOW = 60.0  # seconds
MOST = 16_384  # different things within a minute; beyond these the oldest minute ends early

Entry = Mapping[str, object]


@dataclass(slots=True, eq=False)
class Counted:
    """One thing that has happened, and `again` so often since, first at `first` and last at `last`. `is_open`: its
    minute is not over."""

    series: str
    entry: Entry
    who: Hashable
    since: float
    again: int = 0
    first: float = 0.0
    last: float = 0.0
    is_open: bool = True

    def count(self, now: float) -> None:
        """It has happened again."""
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


class Tally:
    """What has happened within the last minute, oldest first."""

    def __init__(self) -> None:
        self._counted: dict[Hashable, Counted] = {}
        self._different: dict[Hashable, int] = {}

    def again(self, key: Hashable, now: float) -> Counted | None:
        """What has happened within the minute and happens again now, if it has; it is counted then."""
        counted = self._counted.get(key)
        if counted is not None:
            counted.count(now)
        return counted

    def different(self, who: Hashable) -> int:
        """How many different things they have done within the minute."""
        return self._different.get(who, 0)

    def begin(self, key: Hashable, counted: Counted) -> None:
        """It has happened for the first time."""
        self._counted[key] = counted
        self._different[counted.who] = self._different.get(counted.who, 0) + 1

    def ended(self, now: float) -> Iterator[Counted]:
        """What began more than a minute ago, or is too much to remember; it is forgotten."""
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
