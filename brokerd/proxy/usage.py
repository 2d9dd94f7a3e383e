# What clients did through the proxies: who used which one, for which method and path, how often and how many bytes.
# CountedBody here. report.py tells brokerd from time to time, which writes it to its audit log.
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from brokerd.config.token_files import Source
from brokerd.core.access.policy import Caller

AGAIN = 60.0  # seconds between two reports of the same kind of requests
EACH = 200  # kinds of requests of one user within a minute; further ones are counted without method and path
MOST, OTHERS = 10_000, 2_000  # kinds of all users between two reports, and further ones that say only whose they are
LONGEST = 200  # characters of a path that are reported, and of everything else that a client chose
CUT = "…"


class Who(NamedTuple):
    """A client, as the proxy saw it."""

    uid: int | None = None  # None: clients that are not told apart
    user: str | None = None
    unit: str | None = None
    exe: str | None = None

    @classmethod
    def of(cls, caller: Caller) -> Who:
        seen = caller.evidence
        return cls(caller.uid, caller.user, seen.unit or seen.user_unit, seen.exe and seen.exe[:LONGEST])


class Used(NamedTuple):
    """One kind of request. `path` has no query. `status`: 0 if no answer was begun; without a path, its class: 200 for
    2xx."""

    proxy: str
    source: Source
    who: Who
    method: str
    path: str
    status: int


@dataclass(slots=True)
class Count:
    """`up`, `down`: bytes from and to the clients. Times are Unix seconds. `is_taken`: it is being reported, and counts
    nothing more."""

    requests: int = 0
    up: int = 0
    down: int = 0
    first: float = field(default_factory=time.time)
    last: float = 0.0
    is_taken: bool = False

    def note(self, up: int, down: int) -> None:
        """One request has ended."""
        self.requests += 1
        self.up += up
        self.down += down
        self.last = time.time()

    def add(self, other: Count) -> None:
        self.requests += other.requests
        self.up += other.up
        self.down += other.down
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)


class Usage:
    def __init__(self) -> None:
        self._counts: dict[Used, Count] = {}
        self._reported: dict[Used, float] = {}  # when, by the event loop's clock
        self._kinds: Counter[int | None] = Counter()  # of each user within a minute, new and reported

    def note(self, use: Used, up: int, down: int) -> None:
        """One request has ended."""
        self.count_of(use).note(up, down)

    def count_of(self, use: Used) -> Count:
        """What counts requests of this kind, until it is taken."""
        if (count := self._counts.get(use)) is None:
            count = self._counts.setdefault(self._told_apart(use), Count())
        return count

    def _told_apart(self, use: Used) -> Used:
        """As which kind it is counted. What one user does hides nothing of another user."""
        uid = use.who.uid
        if use in self._reported or (self._kinds[uid] < EACH and len(self._counts) < MOST):
            self._kinds[uid] += 1
            return use
        cut = use._replace(who=Who(uid, use.who.user), method=CUT, path=CUT, status=use.status // 100 * 100)
        if cut in self._counts or len(self._counts) < MOST + OTHERS:
            return cut
        return cut._replace(who=Who())

    def due(self, now: float) -> list[tuple[Used, Count]]:
        """What is to be reported now: new kinds of requests, and those whose last report was a minute ago."""
        self._reported = {use: at for use, at in self._reported.items() if at > now - AGAIN}
        due = [use for use in self._counts if use not in self._reported]
        self._reported |= dict.fromkeys(due, now)
        self._kinds = Counter(use.who.uid for use in self._reported)
        taken = [(use, self._counts.pop(use)) for use in due]
        for _, count in taken:
            count.is_taken = True
        return taken

    def give_back(self, pairs: Iterable[tuple[Used, Count]]) -> None:
        """What could not be reported."""
        for use, count in pairs:
            self._reported.pop(use, None)
            self.count_of(use).add(count)
