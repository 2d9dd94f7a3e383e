# File descriptors: how many this process may have. The soft limit that a service starts with is for programs that use
# select(2), which neither trio nor anything else here does.
from __future__ import annotations

import resource


def raise_limit() -> int:
    """Take all that the hard limit allows; the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
