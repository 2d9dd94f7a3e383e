# The newest events in memory, for the page and for status: what happened to grants and to brokerd, and which requests
# failed or were denied. The audit log has more, and has it for longer; fetches of tokens are only there.
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from brokerd.core.shortened import shortened

MOST, MOST_REQUESTS = 200, 50  # events that are kept
REQUESTS_SHOWN = 10  # a flood of denials hides nothing else
ABOUT = ("grant", "provider", "outcome", "reason")  # what is kept of an entry
LONGEST = 300  # characters of a reason that are kept


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that came `count` times in a row, last `at` that Unix time. `who`: who asked for it."""

    at: float
    event: str
    grant: str | None = None
    provider: str | None = None
    outcome: str | None = None
    reason: str | None = None
    who: str | None = None
    count: int = 1

    def is_like(self, other: Seen) -> bool:
        return replace(self, at=other.at, count=other.count) == other

    def as_map(self, *, fully: bool) -> dict[str, object]:
        """`fully`: with who it was, which is for administrators."""
        found = {
            name: getattr(self, name) for name in ("at", "event", "grant", "provider", "outcome", "reason", "count")
        }
        return found | {"who": self.who} if fully else found


class RecentEvents:
    def __init__(self) -> None:
        self._own: deque[Seen] = deque(maxlen=MOST)
        self._requests: deque[Seen] = deque(maxlen=MOST_REQUESTS)

    def note(self, at: float, entry: Mapping[str, object], who: str | None, *, is_request: bool) -> None:
        """`is_request`: a request failed or was denied, which anybody can make happen often."""
        grant, provider, outcome, reason = (_text(entry.get(name)) for name in ABOUT)
        seen = Seen(round(at, 2), str(entry["event"]), grant, provider, outcome, reason, who)
        kept = self._requests if is_request else self._own
        if kept and kept[-1].is_like(seen):
            seen = replace(seen, count=kept.pop().count + 1)
        kept.append(seen)

    def newest(self, most: int, shows: Callable[[str], bool], *, fully: bool) -> list[dict[str, object]]:
        """At most so many, the newest first. Without `fully`, only those about grants that `shows` accepts, and no
        requests: who asks for a grant in vain is nobody else's business."""
        found: Iterable[Seen] = self._own if fully else (each for each in self._own if each.grant and shows(each.grant))
        requests = list(self._requests)[-REQUESTS_SHOWN:] if fully else []
        newest = sorted((*found, *requests), key=lambda each: each.at, reverse=True)[:most]
        return [each.as_map(fully=fully) for each in newest]


def _text(value: object) -> str | None:
    return None if value is None else shortened(str(value), LONGEST)
