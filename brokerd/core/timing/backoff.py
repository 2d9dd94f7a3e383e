# How long to wait after failures of a grant, of its credentials, or of a whole provider. Pure arithmetic;
# the jitter is an argument.
from __future__ import annotations

FIRST = 1.0  # seconds after the first failure; doubles with each further one
LONGEST = 300.0  # seconds; a provider that works again, or a corrected secret, is noticed within 5 minutes
LONGEST_AHEAD = 900.0  # seconds, if no caller waits and no token is due
LONGEST_ASKED = 86_400.0  # seconds; brokerd takes a longer Retry-After for a mistake of the provider
# The part of a delay by which jitter lengthens it, so that grants that failed together do not try again together. The
# longest delay is not lengthened: when grants reach it, the shorter delays have separated them already.
SPREAD = 0.25
SPREAD_ASKED = 0.1  # the same if the provider said how long (law 7)

DOUBTED_FIRST = 900.0  # seconds until a password that may have been refused is sent again: tries lock accounts
HOUR = 3_600.0
RECHECK = 300.0  # seconds between checks whether a refused password was changed; a check sends nothing


def retry_delay(failures: int, asked: float | None, jitter: float, longest: float = LONGEST) -> float:
    """Seconds to wait after `failures` failures in a row (1 or more). `asked`: the provider's Retry-After in seconds;
    the delay is never shorter, and at most 10 % longer (law 7). Less than a second is ignored. `jitter` is in [0,
    1)."""
    if asked is not None and asked >= FIRST:
        return min(LONGEST_ASKED, asked) * (1 + SPREAD_ASKED * jitter)
    return min(longest, FIRST * 2.0 ** min(failures - 1, 30) * (1 + SPREAD * jitter))


def doubted_delay(times: int, jitter: float) -> float:
    """Seconds to wait after a password was sent `times` in a row and perhaps refused: 15 minutes, then an
    hour each time."""
    return (DOUBTED_FIRST if times <= 1 else HOUR) * (1 + SPREAD * jitter)
