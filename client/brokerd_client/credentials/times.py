# How the clients of credential helpers read a time.
from __future__ import annotations


def utc(seconds: float) -> str:
    """Unix seconds as clients read a time: 2026-11-29T08:00:00Z. Never later than the moment itself."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(int(seconds)))
