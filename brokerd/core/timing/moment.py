# A reading of both clocks (law 8), and how long something that began at one reading has lived at another.
# Pure: the Clock port reads the clocks.
from __future__ import annotations

from typing import NamedTuple


class Moment(NamedTuple):
    """The two clocks at one instant.

    `wall` is Unix time in seconds. `boot` is CLOCK_BOOTTIME in seconds: it counts suspended time and no clock step
    changes it, but it is valid only within the boot that `boot_id` names. `trusted`: the wall clock may be compared
    with moments of another boot; false while the system calls its clock unsynchronised, or while the clock is behind
    the newest time in the store."""

    wall: float
    boot: float
    boot_id: str
    trusted: bool = True

    def after(self, seconds: float) -> Moment:
        """`seconds` later, on both clocks."""
        return Moment(self.wall + seconds, self.boot + seconds, self.boot_id, self.trusted)


def seconds_until(anchor: Moment, now: Moment) -> float:
    """Seconds until `anchor`; negative once it has passed. Within one boot CLOCK_BOOTTIME counts. After a reboot only
    the wall clock is left; if it cannot be trusted, nothing is known and the answer is minus infinity."""
    if anchor.boot_id == now.boot_id:
        return anchor.boot - now.boot
    if not (now.trusted and anchor.trusted):
        return float("-inf")
    return anchor.wall - now.wall


def wall_time(anchor: Moment, now: Moment) -> float:
    """`anchor` as Unix seconds on the present wall clock, to the hundredth."""
    if anchor.boot_id == now.boot_id:
        return round(now.wall + (anchor.boot - now.boot), 2)
    return round(anchor.wall, 2)
