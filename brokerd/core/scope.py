# Scopes that are too long to keep or to show: cut, with a mark that says so.
# What a scope means is not known here.
from __future__ import annotations

from collections.abc import Sequence

CUT = "…"  # the last name of a scope that was cut: no scope of RFC 6749 §3.3 can be called so


def cut_scope(names: Sequence[str], longest: int) -> tuple[str, ...]:
    """The first of the names that have at most so many characters together."""
    room = longest
    for number, name in enumerate(names):
        room -= len(name) + 1
        if room < 0:
            return (*names[:number], CUT)
    return tuple(names)


def is_cut(names: Sequence[str] | None) -> bool:
    return bool(names) and names is not None and names[-1] == CUT
