# When something that will expire is worth a line in the log: once when its time comes near, once on its last day, and
# once when it is over. Pure.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from brokerd.core.events import Event

LAST = 86_400.0  # seconds: its last day


class Expiry(NamedTuple):
    """What the event is about expires at `at`, in Unix seconds. It is said when `within` seconds are left, or less.
    `about`: a grant or a provider; `path`: a file of it."""

    event: Event
    about: str
    path: str
    at: float
    within: float


class Expiries:
    """Remembers what was said: for each thing when it expires, and how many seconds were left."""

    def __init__(self) -> None:
        self._said: dict[tuple[Event, str, str], tuple[float, float]] = {}

    def due(self, found: Iterable[Expiry], now: float) -> Iterator[Expiry]:
        """Those that are worth a line now. What is not found any more is forgotten."""
        said, self._said = self._said, {}
        for each in found:
            left, key = each.at - now, (each.event, each.about, each.path)
            at, left_then = said.get(key, (each.at, float("inf")))
            if at != each.at:
                left_then = float("inf")  # it was replaced
            if any(left <= limit < left_then for limit in (each.within, min(LAST, each.within), 0.0)):
                left_then = left
                yield each
            self._said[key] = (each.at, left_then)
