# Leaves a provider alone that seems to be down (law 7): after some failures in a row, one request at a time tests it.
# Pure: a frozen value and functions over it. It counts faults of the provider, never those of one grant.
from __future__ import annotations

from dataclasses import dataclass, replace

from brokerd.core.timing.backoff import retry_delay
from brokerd.core.timing.moment import Moment, seconds_until

THRESHOLD = 5  # failures in a row before the breaker opens: one grant's bad minute is not an outage
LONGEST_WAIT = 400.0  # seconds; no wait is longer. If one seems to be, the clock was wrong when it began
PROBE = 30.0  # seconds until another test request may go, if the one before has not ended


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row. Nothing is sent before `shut_until`."""

    failures: int = 0
    shut_until: Moment | None = None

    @property
    def is_open(self) -> bool:
        """Whether the provider seems to be down."""
        return self.failures >= THRESHOLD

    def wait(self, now: Moment) -> float:
        """Seconds until something may be sent again; 0 or less: now. A wait longer than any that can be set counts as
        none. If it were cut to the longest one, it would begin again at each look, until the wrong date had come."""
        left = 0.0 if self.shut_until is None else seconds_until(self.shut_until, now)
        return left if left <= LONGEST_WAIT else 0.0


def succeeded(breaker: Breaker) -> Breaker:
    """The provider answered, whatever it said."""
    return breaker if breaker == Breaker() else Breaker()


def failed(breaker: Breaker, now: Moment, jitter: float, asked: float | None = None) -> Breaker:
    """The provider could not be reached or is not available. `asked`: its Retry-After in seconds."""
    failures = breaker.failures + 1
    if failures < THRESHOLD:
        return replace(breaker, failures=failures)
    delay = retry_delay(failures - THRESHOLD + 3, asked, jitter)
    return Breaker(failures, now.after(min(LONGEST_WAIT, delay)))


def probing(breaker: Breaker, now: Moment) -> Breaker:
    """One exchange tests the provider: no other one is sent until it has ended, or half a minute has passed."""
    if not breaker.is_open:
        return breaker
    return replace(breaker, shut_until=now.after(PROBE))
