# The loop that keeps tokens fresh: asks the schedule what is due, tells the flights. It decides nothing itself.
from __future__ import annotations

import trio

from brokerd.core.ports import Clock
from brokerd.flights import Flights

LOOK_AGAIN = 30.0  # seconds; no sleep is longer: a suspended machine or a stepped clock is noticed (law 8)


async def refresh_ahead(flights: Flights, clock: Clock) -> None:
    """Renew every grant when it is due, for ever."""
    while True:
        flights.rescheduled = trio.Event()
        for name in flights.schedule.take_due(clock.now().boot):
            flights.renew(name)
            await trio.lowlevel.checkpoint()  # ten thousand that are due at once delay no caller
        following = flights.schedule.next()
        delay = LOOK_AGAIN if following is None else min(LOOK_AGAIN, following - clock.now().boot)
        with trio.move_on_after(max(0.0, delay)):
            await flights.rescheduled.wait()
