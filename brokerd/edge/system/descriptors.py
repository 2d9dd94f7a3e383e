# How many file descriptors this process may have. A service starts with a low soft limit, because select(2) needs that;
# brokerd and trio do not use select(2).
from __future__ import annotations

import resource


def raise_limit() -> int:
    """Raise the soft limit to the hard limit, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
