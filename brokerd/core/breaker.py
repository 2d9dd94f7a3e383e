# When a provider that seems to be down is left alone (law 7): after failures in a row only one probe at a time.
# Pure: a frozen value and the functions over it. It counts faults of the provider, never those of one grant.
from __future__ import annotations

from dataclasses import dataclass, replace

from brokerd.core.backoff import retry_delay
from brokerd.core.moment import Moment, seconds_until

THRESHOLD = 5  # failures in a row before the breaker opens: one grant's bad minute is not an outage
LONGEST_WAIT = 400.0  # seconds; no wait is set for longer: one that seems to be was dated by a clock that was wrong
PROBE = 30.0  # seconds that a probe is waited for before another may go


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row; while `shut_until` lies ahead nothing is sent."""

    failures: int = 0
    shut_until: Moment | None = None

    def wait(self, now: Moment) -> float:
        """Seconds until something may be sent again; 0 or less: now. A wait that nobody can have set is not believed:
        cut to the longest one it would begin again at each look, and hold for as long as the clock was wrong."""
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
    """One exchange goes out as a probe: nobody else sends until it ended, or half a minute has passed."""
    if breaker.failures < THRESHOLD:
        return breaker
    return replace(breaker, shut_until=now.after(PROBE))
