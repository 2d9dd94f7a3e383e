# Moments of another host in terms of this one's clocks (laws 5 and 8). The clocks of two hosts may differ: what counts
# is when this host saw a value, and the latest moment at which it was surely not written yet.
from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import msgspec

from brokerd.core.timing.moment import Moment, seconds_until

T = TypeVar("T")
# What says when something may happen again counts from the latest moment at which the value may have been written, and
# everything else, such as an expiry, from the earliest.
NOT_BEFORE = frozenset(
    {"retry", "retry_after", "rotation_retry", "revocation_retry", "refused_until", "until", "shut_until"}
)
UNKNOWN = "unknown"  # instead of a boot id: no clock here can tell


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment of another host, and the two moments of this one between which it was."""

    theirs: Moment
    earliest: Moment
    latest: Moment


def anchored(theirs: Moment, now: Moment, absent_at: float | None, difference: float) -> Anchor:
    """`absent_at`: CLOCK_BOOTTIME when the value was surely not written yet; None: not known. `difference`: how many
    seconds the wall clocks of two hosts may differ."""
    early, late = absent_at, now.boot
    if theirs.trusted and now.trusted and not contradict(theirs, now, absent_at, difference):
        by_wall = now.boot + theirs.wall - now.wall
        early = by_wall - difference if early is None else max(early, by_wall - difference)
        early, late = min(early, now.boot), min(late, by_wall + difference)
    latest = now.after(late - now.boot)
    if early is None:
        return Anchor(theirs, Moment(theirs.wall, 0.0, UNKNOWN, trusted=False), latest)
    return Anchor(theirs, now.after(early - now.boot), latest)


def contradict(theirs: Moment, now: Moment, absent_at: float | None, difference: float) -> bool:
    """Whether the two wall clocks surely differ by more than that: then they say nothing."""
    ahead = theirs.wall - now.wall
    return ahead > difference or (absent_at is not None and absent_at - now.boot - ahead > difference)


def translated(value: T, anchor: Anchor) -> T:
    """The value with every Moment in it translated."""
    found: T = _translated(value, anchor, "")
    return found


def _translated(value: Any, anchor: Anchor, name: str) -> Any:
    if isinstance(value, Moment):
        return _moment(value, anchor, anchor.latest if name in NOT_BEFORE else anchor.earliest)
    if isinstance(value, msgspec.Struct):
        changed = _changed(value, value.__struct_fields__, anchor)
        return msgspec.structs.replace(value, **changed) if changed else value
    if is_dataclass(value) and not isinstance(value, type):
        changed = _changed(value, [each.name for each in fields(value)], anchor)
        return replace(value, **changed) if changed else value
    if isinstance(value, tuple) and value:
        return tuple(_translated(each, anchor, name) for each in value)
    return value


def _changed(value: object, names: Any, anchor: Anchor) -> dict[str, Any]:
    found = {}
    for name in names:
        before = getattr(value, name)
        if before is not None and not isinstance(before, str | int | float | bytes | bool):
            after = _translated(before, anchor, name)
            if after is not before:
                found[name] = after
    return found


def _moment(moment: Moment, anchor: Anchor, ours: Moment) -> Moment:
    apart = seconds_until(moment, anchor.theirs)
    if apart == float("-inf") or ours.boot_id == UNKNOWN:
        return Moment(moment.wall, 0.0, UNKNOWN, trusted=False)
    return ours.after(apart)
