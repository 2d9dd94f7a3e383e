# Moments of another host in terms of this one's clocks (laws 5 and 8). The clocks of two hosts may differ: what counts
# is when this host saw a value, and the latest moment at which it was surely not made yet: when this host knew that
# etcd had not come to a revision that the other one had seen by then. CLOCK_BOOTTIME runs
# alike on all hosts: what many values say of how far two of them are apart is true of each value.
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
DRIFT = 0.0005  # seconds in a second by which two clocks drift apart at most: NTP corrects a rate by no more
UNKNOWN = "unknown"  # instead of a boot id: no clock here can tell


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment of another host, and the two moments of this one between which it was."""

    theirs: Moment
    earliest: Moment
    latest: Moment


@dataclass(frozen=True, slots=True)
class Ahead:
    """By how many seconds CLOCK_BOOTTIME of this host is ahead of that of another host's boot: `least` and `most`, as
    it was known `at` that CLOCK_BOOTTIME of this host."""

    least: float
    most: float
    at: float

    @property
    def doubt(self) -> float:
        return self.most - self.least

    def then(self, at: float) -> Ahead:
        """As far as that says how it was at another time."""
        drift = DRIFT * abs(at - self.at)
        return Ahead(self.least - drift, self.most + drift, at)


def narrowed(known: Ahead | None, theirs: Moment, now: Moment, absent_at: float | None) -> Ahead:
    """What is known of two clocks with one more value, as in `anchored`. If both cannot be true, one of the two hosts
    stood still for a while, as a virtual machine does that is paused: what was known before is void."""
    seen = Ahead(float("-inf") if absent_at is None else absent_at - theirs.boot, now.boot - theirs.boot, now.boot)
    if known is None:
        return seen
    before = known.then(now.boot)
    least, most = max(before.least, seen.least), min(before.most, seen.most)
    return Ahead(least, most, now.boot) if least <= most else seen


def anchored(
    theirs: Moment, now: Moment, absent_at: float | None, difference: float, ahead: Ahead | None = None
) -> Anchor:
    """`now`: when this host saw the value. `absent_at`: CLOCK_BOOTTIME when it was surely not written yet; None: not
    known. `difference`: how many seconds the wall clocks of two hosts may differ. `ahead`: what is known of the two
    hosts from other values."""
    early, late = absent_at, now.boot
    if ahead is not None:
        found = ahead.then(now.boot)
        early = max(found.least + theirs.boot, float("-inf") if early is None else early)
        early, late = None if early == float("-inf") else early, min(late, found.most + theirs.boot)
    if theirs.trusted and now.trusted and not contradict(theirs, now, early, difference):
        by_wall = now.boot + theirs.wall - now.wall
        early = by_wall - difference if early is None else max(early, by_wall - difference)
        early, late = min(early, late), min(late, by_wall + difference)
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
