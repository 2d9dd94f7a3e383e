# Tells the log of a provider that does not answer, before the time for its answer is over: that takes minutes where a
# stored token was sent (law 3), and until then nothing has failed.
from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from brokerd.broker.provider import Provider
from brokerd.core.events import Event
from brokerd.core.ports import Clock
from brokerd.core.timing.moment import wall_time
from brokerd.telemetry.event_log import EventLog, utc

LOOK = 0.5  # seconds between two looks
AGAIN = 600.0  # seconds between two lines about a provider


async def notice_slow(providers: Callable[[], Iterable[Provider]], clock: Clock, events: EventLog) -> None:
    """For ever."""
    told: dict[str, float] = {}
    while True:
        await trio.sleep(LOOK)
        now = clock.now()
        for provider in providers():
            late = provider.unanswered_since(now)
            if late is not None and now.boot - told.get(provider.name, -AGAIN) >= AGAIN:
                told[provider.name] = now.boot
                since, waiting = utc(wall_time(late, now)), len(provider.unanswered)
                reason = f"{provider.name} has not answered for {now.boot - late.boot:.0f} s"
                events.say(Event.PROVIDER_SLOW, provider=provider.name, reason=reason, since=since, requests=waiting)
