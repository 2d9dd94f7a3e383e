# What the last requests showed of a provider: how long it takes to answer, when it last did, since when it fails.
# Pure: a frozen value and functions over it. People see it; breaker.py decides whether a provider is left alone.
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from brokerd.core.exchange.outcomes import Cause
from brokerd.core.timing.moment import Moment

KEPT = 64  # answers whose times are remembered


@dataclass(frozen=True, slots=True)
class Health:
    """`times`: the seconds of the last requests that reached the provider, the newest last. `last_ok`: when it last
    answered as a provider that works, whatever it said. `failing_since`: of the first failure after that; `cause`: of
    the newest failure."""

    times: tuple[float, ...] = ()
    last_ok: Moment | None = None
    failing_since: Moment | None = None
    cause: Cause | None = None


def timed(health: Health, seconds: float) -> Health:
    """A request was answered, or its answer did not come in time."""
    return replace(health, times=(*health.times[1 - KEPT :], max(0.0, seconds)))


def answered(health: Health, now: Moment) -> Health:
    return replace(health, last_ok=now, failing_since=None, cause=None)


def failed(health: Health, cause: Cause, now: Moment) -> Health:
    return replace(health, failing_since=health.failing_since or now, cause=cause)


def restored(failing: Iterable[tuple[Moment, Cause]], last_ok: float) -> Health:
    """At a start: `failing`, since when grants of the provider fail, and why; `last_ok`: the newest time, in Unix
    seconds, at which it is known to have given a token."""
    found = [each for each in failing if each[1].down and each[0].wall > last_ok]
    since, cause = min(found, key=lambda each: each[0].wall, default=(None, None))
    return Health(failing_since=since, cause=cause)


def percentile(times: tuple[float, ...], share: float) -> float | None:
    """The time within which that share of the requests was answered; None: there was none."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)] if times else None
