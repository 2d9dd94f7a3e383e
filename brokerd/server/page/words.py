# Times in words, relative and absolute: "4 min", "19:11:40". The absolute ones are in the time zone of the daemon.
from __future__ import annotations

import time

from brokerd.core.timing.duration import in_words
from brokerd.server.page.markup import Html, tag


def away(at: float, now: float) -> str:
    """How far a moment is from now: "in 3 min", "3 min ago"."""
    return f"in {in_words(at - now)}" if at >= now else f"{in_words(now - at)} ago"


def clock(at: float, now: float) -> str:
    """A moment as a clock shows it, with the date if it is not today's."""
    there, here = time.localtime(at), time.localtime(now)
    today = there[:3] == here[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", there)


def moment(at: float, now: float, words: str | None = None) -> Html:
    """The moment for people and for programs. `words`: what people read (default: the clock's)."""
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    title = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
    return tag("time", words or clock(at, now), datetime=exact, title=title)


def zone(now: float) -> str:
    return time.strftime("%Z", time.localtime(now))


def number(count: int, one: str, many: str | None = None) -> str:
    """ "1 grant", "2 grants"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
