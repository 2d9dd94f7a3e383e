# The loop that keeps tokens fresh: asks the schedule what is due, tells the flights. It decides nothing itself.
from __future__ import annotations

import trio

from brokerd.core.ports import Clock
from brokerd.flights import Flights

TURN = 50  # grants that are looked at before callers have their turn: ten thousand that are due delay nobody
LOOK_AGAIN = 30.0  # seconds; no sleep is longer: a suspended machine or a stepped clock is noticed (law 8)


async def refresh_ahead(flights: Flights, clock: Clock) -> None:
    """Renew every grant when it is due, for ever."""
    while True:
        flights.rescheduled, flights.looked = trio.Event(), trio.current_time()
        for number, name in enumerate(flights.schedule.take_due(clock.now().boot), 1):
            flights.renew(name)
            if number % TURN == 0:
                await trio.lowlevel.checkpoint()
        following = flights.schedule.next()
        delay = LOOK_AGAIN if following is None else min(LOOK_AGAIN, following - clock.now().boot)
        with trio.move_on_after(max(0.0, delay)):
            await flights.rescheduled.wait()
