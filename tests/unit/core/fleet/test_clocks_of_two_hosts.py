# Whatever the clocks and boots of two hosts are: a translated expiry is never later than the true one, and what may
# happen again never earlier (core/fleet/clocks.py).
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.fleet.clocks import NOT_BEFORE, UNKNOWN, Ahead, Anchor, anchored, narrowed, translated
from brokerd.core.grant.record import Record
from brokerd.core.timing.moment import Moment, seconds_until
from tests.unit.core.values import access, refresh
from tests.unit.edge.store.stores import FULL, records

DIFFERENCE = 120.0
ROUNDING = 0.001  # seconds


@dataclass(frozen=True)
class Clocks:
    """Of a host: true time at its boot, how far its wall clock is off, whether it may be trusted."""

    boot_id: str
    booted: float
    off: float
    trusted: bool

    def at(self, time: float) -> Moment:
        return Moment(1e9 + time + self.off, time - self.booted, self.boot_id, self.trusted)


@dataclass(frozen=True)
class Seen:
    """True times of a value: when it was surely not there, when it was written, and when it was seen."""

    absent: float | None
    written: float
    seen: float


delays = st.floats(0, 5_000)
seen = st.builds(
    lambda written, before, after: Seen(None if before is None else written - before, written, written + after),
    st.floats(10_000, 20_000),
    st.none() | delays,
    delays,
)


@st.composite
def pairs(draw: st.DrawFn, *, trusted: bool | None = None) -> tuple[Clocks, Clocks]:
    """Two hosts. The wall clocks differ by at most DIFFERENCE where both are trusted."""
    trust = st.booleans() if trusted is None else st.just(trusted)
    ours = Clocks("ours", draw(st.floats(-1e6, 5_000)), draw(st.floats(-1e5, 1e5)), draw(trust))
    is_trusted = draw(trust)
    most = DIFFERENCE if is_trusted and ours.trusted else 1e7
    off = ours.off + draw(st.floats(-most, most))
    return Clocks("theirs", draw(st.floats(-1e6, 5_000)), off, is_trusted), ours


def known(theirs: Clocks, ours: Clocks, values: list[Seen]) -> Ahead | None:
    """What other values have said."""
    found = None
    for each in sorted(values, key=lambda each: each.seen):
        found = narrowed(found, theirs.at(each.written), ours.at(each.seen), absent(ours, each))
    return found


def absent(ours: Clocks, value: Seen) -> float | None:
    return None if value.absent is None else ours.at(value.absent).boot


@given(pairs(), seen, st.lists(seen, max_size=3), st.floats(-5_000, 50_000))
def test_nothing_lives_longer_and_nothing_is_tried_earlier_than_it_may_be(
    hosts: tuple[Clocks, Clocks], value: Seen, others: list[Seen], ends: float
) -> None:
    theirs, ours = hosts
    ahead = known(theirs, ours, others)
    anchor = anchored(theirs.at(value.written), ours.at(value.seen), absent(ours, value), DIFFERENCE, ahead)
    true = value.written + ends
    record = Record("app", access_token=access(at=theirs.at(true)), retry_after=theirs.at(true))
    record = translated(record, anchor)
    now = ours.at(value.seen)
    assert record.access_token is not None
    assert record.retry_after is not None
    assert seconds_until(record.access_token.issued, now) <= true - value.seen + ROUNDING
    assert seconds_until(record.retry_after, now) >= true - value.seen - ROUNDING


@given(pairs(trusted=True), seen, st.floats(0, 50_000))
def test_wall_clocks_that_are_right_cost_no_more_than_they_may_differ(
    hosts: tuple[Clocks, Clocks], value: Seen, ends: float
) -> None:
    theirs, ours = hosts
    anchor = anchored(theirs.at(value.written), ours.at(value.seen), None, DIFFERENCE)
    true = value.written + ends
    token = translated(access(at=theirs.at(true)), anchor)
    assert seconds_until(token.issued, ours.at(value.seen)) >= true - value.seen - 2 * DIFFERENCE - ROUNDING


@given(pairs(trusted=False), seen)
def test_where_no_clock_can_tell_nothing_lives(hosts: tuple[Clocks, Clocks], value: Seen) -> None:
    theirs, ours = hosts
    anchor = anchored(theirs.at(value.written), ours.at(value.seen), None, DIFFERENCE)
    token = translated(access(at=theirs.at(value.written)), anchor)
    assert token.issued.boot_id == UNKNOWN
    assert seconds_until(token.issued, ours.at(value.seen)) == float("-inf")


def moments(value: Any, name: str = "") -> Iterator[tuple[str, Moment]]:
    if isinstance(value, Moment):
        yield name, value
    elif isinstance(value, msgspec.Struct):
        for each in value.__struct_fields__:
            yield from moments(getattr(value, each), each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from moments(getattr(value, field.name), field.name)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from moments(each, name)
    elif isinstance(value, dict):
        for each in value.values():
            yield from moments(each, name)


THEIRS, EARLY, LATE = Moment(2e9, 70.0, "boot-1"), Moment(2e9, 500.0, "ours"), Moment(2e9, 600.0, "ours")


def test_no_moment_of_a_record_is_left_in_the_other_hosts_terms() -> None:
    before, after = dict(moments(FULL)), dict(moments(translated(FULL, Anchor(THEIRS, EARLY, LATE))))
    assert {"retry", "retry_after", "rotation_retry", "until", "interrupted", "issued", "changed"} <= after.keys()
    assert after.keys() == before.keys()
    for name, moment in after.items():
        ours = LATE if name in NOT_BEFORE else EARLY
        assert moment.boot_id == "ours", name
        assert moment.boot - ours.boot == pytest.approx(before[name].boot - THEIRS.boot), name


@given(records)
def test_nothing_else_of_a_record_changes(record: Record) -> None:
    changed = translated(record, Anchor(THEIRS, EARLY, LATE))
    assert [name for name, _ in moments(changed)] == [name for name, _ in moments(record)]
    assert (changed.generation, changed.state, changed.refused) == (record.generation, record.state, record.refused)
    values = [record.access_token and record.access_token.value, record.refresh_token and record.refresh_token.value]
    assert [
        changed.access_token and changed.access_token.value,
        changed.refresh_token and changed.refresh_token.value,
    ] == values


def test_a_token_without_an_end_stays_without_one() -> None:
    token = translated(refresh(None, at=THEIRS), Anchor(THEIRS, EARLY, LATE))
    assert token.expires is None
