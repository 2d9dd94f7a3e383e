# A duration, as people write it in a configuration and as they read it.
from __future__ import annotations

import re

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
LONGEST = 100 * 365 * 86_400  # seconds; arithmetic with dates fails far beyond
WORDS = ((86_400, 2, "days"), (3_600, 2, "h"), (60, 1, "min"), (1, 0, "s"))  # seconds, and the least number shown
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def in_words(seconds: float) -> str:
    """In one unit: "4 min"."""
    seconds = max(0.0, seconds)
    size, unit = next((size, unit) for size, least, unit in WORDS if seconds >= least * size)
    return f"{seconds // size:.0f} {unit}"


class Duration(float):
    """Seconds, written as a number or as text with a unit: 90, "90s", "5m", "2h", "1d"."""

    @classmethod
    def read(cls, raw: object) -> Duration:
        if isinstance(raw, str) and (match := DURATION.fullmatch(raw.strip())):
            raw = float(match[1]) * UNITS[match[2]]
        if isinstance(raw, int | float) and not isinstance(raw, bool) and 0 <= raw < float("inf"):
            if raw > LONGEST:
                raise ValueError("Expected a duration of at most 100 years")
            return cls(raw)
        raise ValueError('Expected a duration: seconds, or text such as "90s", "5m", "2h"')
