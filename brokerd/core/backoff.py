# How long to stay away after failures: of a grant, of its credentials, of a whole provider. Pure arithmetic;
# the jitter is an argument.
from __future__ import annotations

FIRST = 1.0  # seconds after the first failure; doubles with each further one
LONGEST = 300.0  # seconds; a provider that came back is noticed within five minutes
LONGEST_ASKED = 86_400.0  # seconds; a Retry-After beyond a day is taken for a mistake of the provider's
SPREAD = 0.25  # the share of a delay by which jitter lengthens it, so that failed grants do not return in step

HOUR = 3_600.0
HOURLY_TRIES = 24  # refused credentials are tried hourly for a day, then daily (law 7)
RECHECK = 300.0  # seconds between looks at whether a refused password was changed; nothing is sent to look


def retry_delay(failures: int, asked: float | None, jitter: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 or more).

    `asked` is the provider's Retry-After in seconds; it is never undercut (law 7). `jitter` is in [0, 1).
    """
    own = min(LONGEST, FIRST * 2.0 ** min(failures - 1, 30))
    floor = min(LONGEST_ASKED, asked) if asked is not None else 0.0
    return max(own, floor) * (1 + SPREAD * jitter)


def refused_delay(refusals: int, jitter: float) -> float:
    """Seconds to wait after the `refusals`-th time in a row that credentials were refused: hourly, then daily."""
    return (HOUR if refusals <= HOURLY_TRIES else 24 * HOUR) * (1 + SPREAD * jitter)
