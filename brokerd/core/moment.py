# A reading of both clocks (law 8), and how long something that was anchored at one lives at another.
# Pure: readings come from the Clock port, never from here.
from __future__ import annotations

from typing import NamedTuple


class Moment(NamedTuple):
    """The two clocks at one instant.

    `wall` is Unix time in seconds. `boot` is CLOCK_BOOTTIME in seconds: it counts suspended time and no clock
    step moves it, but it means something only within the boot that `boot_id` names. `trusted` says whether the
    wall clock may be believed for what was anchored in another boot: it is false while the system calls its
    clock unsynchronised, or while the clock is behind the newest time in the store.
    """

    wall: float
    boot: float
    boot_id: str
    trusted: bool = True

    def after(self, seconds: float) -> Moment:
        """The same anchor, `seconds` later."""
        return Moment(self.wall + seconds, self.boot + seconds, self.boot_id, self.trusted)


def seconds_until(anchor: Moment, now: Moment) -> float:
    """How long until `anchor`, in seconds; negative once it has passed.

    Within one boot CLOCK_BOOTTIME is the truth, whatever the wall clock was set to meanwhile. Across a reboot only
    the wall clock is left; where that cannot be trusted, nothing is known and the answer is minus infinity.
    """
    if anchor.boot_id == now.boot_id:
        return anchor.boot - now.boot
    if not (now.trusted and anchor.trusted):
        return float("-inf")
    return anchor.wall - now.wall


def wall_time(anchor: Moment, now: Moment) -> float:
    """`anchor` as Unix seconds on the wall clock as it goes now, to the hundredth."""
    if anchor.boot_id == now.boot_id:
        return round(now.wall + (anchor.boot - now.boot), 2)
    return round(anchor.wall, 2)
