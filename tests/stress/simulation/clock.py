# The two clocks of a simulated machine, the time that is true, and the virtual time of trio. A suspend, a step and a
# reboot are what an event makes of them. It knows nothing of brokerd but the Moment that it reads.
from __future__ import annotations

from math import inf

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from brokerd.core.timing.moment import Moment

WALL = 1_800_000_000.0  # Unix seconds at the true time 0
UPTIME = 60_000.0  # seconds for which the machine was up when brokerd came


class VirtualTime(trio.abc.Clock):
    """Time that jumps to the next deadline as soon as no task can run. MockClock does the same, and takes a turn of the
    loop more for each jump: a third of all turns."""

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        self._called = GLOBAL_RUN_CONTEXT.runner.entry_queue

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self._called.queue or self._called.idempotent_queue:  # run_sync_soon comes first
            return 0.0
        if deadline == inf:
            return inf
        self._now = max(self._now, deadline)
        return 0.0


class Clock:
    """The Clock port. `off`: seconds by which the wall clock is wrong; `floor` as in brokerd.edge.system.clock."""

    def __init__(self) -> None:
        self.suspended = 0.0
        self.off = 0.0
        self.synchronised = True
        self.floor = 0.0
        self.boots = 1
        self._booted = -UPTIME

    def true(self) -> float:
        """Seconds that have really passed, as the providers count them."""
        return trio.current_time() + self.suspended

    def now(self) -> Moment:
        true = self.true()
        wall = WALL + true + self.off
        return Moment(wall, true - self._booted, f"boot-{self.boots}", self.synchronised and wall >= self.floor)

    def server_wall(self) -> float:
        """The providers' wall clock, which is right."""
        return WALL + self.true()

    def step(self, seconds: float, *, noticed: bool) -> None:
        """The wall clock is set; `noticed`: the system knows that it is not synchronised while it is wrong."""
        self.off = 0.0 if seconds == 0.0 else self.off + seconds
        self.synchronised = self.off == 0.0 or not noticed

    def reboot(self, off: float) -> None:
        """Up again at once; a wall clock that is wrong then is known to be."""
        self.boots += 1
        # Every boot's clock is behind the one before, and ahead of trio's: the sum of a time and a delay that is more
        # than nothing then is another time also after rounding, or virtual time would stand still.
        self._booted /= 2
        self.off, self.synchronised = off, off == 0.0
