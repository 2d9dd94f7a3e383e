# The loop that keeps tokens fresh: asks the schedule what is due, tells the broker. It decides nothing itself.
from __future__ import annotations

import trio

from brokerd.broker import Broker
from brokerd.core.ports import Clock

LOOK_AGAIN = 30.0  # seconds; no sleep is longer: a suspended machine or a stepped clock is noticed (law 8)


async def refresh_ahead(broker: Broker, clock: Clock) -> None:
    """Renew every grant when it is due, for ever."""
    while True:
        broker.rescheduled = trio.Event()
        for name in broker.schedule.take_due(clock.now().boot):
            broker.renew(name)
        following = broker.schedule.next()
        delay = LOOK_AGAIN if following is None else min(LOOK_AGAIN, following - clock.now().boot)
        with trio.move_on_after(max(0.0, delay)):
            await broker.rescheduled.wait()
