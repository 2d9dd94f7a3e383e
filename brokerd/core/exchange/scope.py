# Cuts scopes that are too long to keep or to show, and marks them as cut; keeps one object for equal ones. It does not
# know what a scope means.
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

CUT = "…"  # the last name of a scope that was cut: no scope of RFC 6749 §3.3 can be called so


def cut_scope(names: Sequence[str], longest: int) -> tuple[str, ...]:
    """The first names, which have at most `longest` characters together."""
    room = longest
    for number, name in enumerate(names):
        room -= len(name) + 1
        if room < 0:
            return (*names[:number], CUT)
    return tuple(names)


def is_cut(names: Sequence[str] | None) -> bool:
    return bool(names) and names is not None and names[-1] == CUT


@lru_cache(maxsize=256)
def shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same scope, as one object for all grants that have it: there may be a hundred thousand."""
    return names
