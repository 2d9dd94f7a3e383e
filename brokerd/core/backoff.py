# How long to stay away after failures: of a grant, of its credentials, of a whole provider. Pure arithmetic;
# the jitter is an argument.
from __future__ import annotations

FIRST = 1.0  # seconds after the first failure; doubles with each further one
LONGEST = 300.0  # seconds; a provider that came back, or a secret that was mended, is noticed within five minutes
LONGEST_AHEAD = 900.0  # seconds, where nobody waits for what failed and no token is due
LONGEST_ASKED = 86_400.0  # seconds; a Retry-After beyond a day is taken for a mistake of the provider's
# The share of a delay by which jitter lengthens it, so that failed grants do not return in step. What parted them on
# the way to the longest delay still parts them there: that one is not lengthened.
SPREAD = 0.25
SPREAD_ASKED = 0.1  # the same where the provider said how long (law 7)

DOUBTED_FIRST = 900.0  # seconds until a password is sent again that may have been refused: tries lock accounts (law 7)
HOUR = 3_600.0
RECHECK = 300.0  # seconds between looks at whether a refused password was changed; nothing is sent to look


def retry_delay(failures: int, asked: float | None, jitter: float, longest: float = LONGEST) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 or more), or after as many refusals of credentials
    whose repetition locks no account.

    `asked` is the provider's Retry-After in seconds: it is never undercut, and exceeded by 10 % at most (law 7). One of
    less than a second says nothing. `jitter` is in [0, 1).
    """
    if asked is not None and asked >= FIRST:
        return min(LONGEST_ASKED, asked) * (1 + SPREAD_ASKED * jitter)
    return min(longest, FIRST * 2.0 ** min(failures - 1, 30) * (1 + SPREAD * jitter))


def doubted_delay(times: int, jitter: float) -> float:
    """Seconds to wait after a password was sent `times` in a row and perhaps refused: a quarter of an hour, then an
    hour each time."""
    return (DOUBTED_FIRST if times <= 1 else HOUR) * (1 + SPREAD * jitter)
