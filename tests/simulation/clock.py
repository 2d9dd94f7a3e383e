# The two clocks of a simulated machine, and the time that is true. Virtual time is trio's; a suspend, a step and a
# reboot are what an event makes of it. It knows nothing of brokerd but the Moment that it reads.
from __future__ import annotations

import trio

from brokerd.core.moment import Moment

WALL = 1_800_000_000.0  # Unix seconds at the true time 0
UPTIME = 60_000.0  # seconds for which the machine was up when brokerd came


class Clock:
    """The Clock port. `off`: seconds by which the wall clock is wrong; `floor` as in brokerd.edge.clock."""

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
