# What clients did through the proxies: who used which one, for which method and path, how often and how many bytes.
# CountedBody here. report.py tells brokerd from time to time, which writes it to its audit log.
from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from brokerd.config.token_files import Source
from brokerd.core.access.policy import Caller

AGAIN = 60.0  # seconds between two reports of the same kind of requests
MOST = 1_000  # kinds of requests between two reports; further ones are counted without method and path
LONGEST = 200  # characters of a path that are reported, and of everything else that a client chose
CUT = "…"


class Who(NamedTuple):
    """A client, as the proxy saw it."""

    uid: int
    user: str | None
    unit: str | None
    exe: str | None

    @classmethod
    def of(cls, caller: Caller) -> Who:
        seen = caller.evidence
        return cls(caller.uid, caller.user, seen.unit or seen.user_unit, seen.exe and seen.exe[:LONGEST])


class Used(NamedTuple):
    """One kind of request. `path` has no query. `status`: 0 if no answer was begun."""

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

    def note(self, use: Used, up: int, down: int) -> None:
        """One request has ended."""
        self.count_of(use).note(up, down)

    def count_of(self, use: Used) -> Count:
        """What counts requests of this kind, until it is taken."""
        if (count := self._counts.get(use)) is None:
            if len(self._counts) >= MOST:
                use = use._replace(method=CUT, path=CUT, who=use.who._replace(exe=None))
            count = self._counts.setdefault(use, Count())
        return count

    def due(self, now: float) -> list[tuple[Used, Count]]:
        """What is to be reported now: new kinds of requests, and those whose last report was a minute ago."""
        self._reported = {use: at for use, at in self._reported.items() if at > now - AGAIN}
        due = [use for use in self._counts if use not in self._reported]
        self._reported |= dict.fromkeys(due, now)
        taken = [(use, self._counts.pop(use)) for use in due]
        for _, count in taken:
            count.is_taken = True
        return taken

    def give_back(self, pairs: Iterable[tuple[Used, Count]]) -> None:
        """What could not be reported."""
        for use, count in pairs:
            self._reported.pop(use, None)
            self.count_of(use).add(count)
