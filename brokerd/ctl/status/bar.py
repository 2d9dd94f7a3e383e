# The life of a token as a bar: what is left of it, from the left, and a mark. When what is left has shrunk to the mark,
# the token is renewed.
from __future__ import annotations

import math
from functools import cache

from brokerd.core.grant.condition import Grant, Tone
from brokerd.ctl.status.look import Look

# What is left, what has passed, and the mark in each of them.
LINES, ASCII_LINES = ("━", "─", "╋", "┼"), ("=", "-", "#", "|")


def bar(grant: Grant, now: float, look: Look, width: int, tone: Tone) -> str:
    """It is `width` columns wide. The grant serves a token whose expiry is known."""
    issued, ends = grant["issued_at"], grant["expires_at"]
    lifetime = max(ends - issued, 1e-6)
    left = min(width, max(1, math.ceil(width * (ends - now) / lifetime)))
    renews = grant["next_renewal_at"]
    is_marked = renews is not None and issued < renews < ends
    at = min(width - 1, int(width * (ends - renews) / lifetime)) if is_marked else None
    return _drawn(look, width, left, at, tone)


@cache  # many grants have the same one
def _drawn(look: Look, width: int, left: int, at: int | None, tone: Tone) -> str:
    full, empty, mark, passed = LINES if look.utf8 else ASCII_LINES
    drawn = full * left + empty * (width - left)
    if at is not None:
        drawn = drawn[:at] + (mark if at < left else passed) + drawn[at + 1 :]
    return look.paint(drawn[:left], tone) + look.paint(drawn[left:], "dim")
