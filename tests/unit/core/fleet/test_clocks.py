# Moments of another host in this one's terms (core/fleet/clocks.py).
from __future__ import annotations

import pytest

from brokerd.core.fleet.clocks import DRIFT, Ahead, anchored, narrowed
from brokerd.core.timing.moment import Moment

AHEAD = 500.0  # seconds by which our CLOCK_BOOTTIME is ahead of theirs
UNTRUSTED = 120.0


def theirs(boot: float, *, wall: float = 0.0) -> Moment:
    return Moment(1_000_000.0 + boot + wall, boot, "theirs", True)


def ours(boot: float) -> Moment:
    return Moment(1_000_000.0 + boot - AHEAD, boot, "ours", True)


def learnt(*values: tuple[float, float, float | None]) -> Ahead:
    """What values say that were written at a moment of theirs, seen so many seconds later, and surely absent so many
    seconds before."""
    known = None
    for at, seen_after, absent_before in values:
        absent = None if absent_before is None else at + AHEAD - absent_before
        known = narrowed(known, theirs(at), ours(at + AHEAD + seen_after), absent)
    assert known is not None
    return known


def test_a_value_that_is_seen_after_a_pause_is_dated_by_what_is_known_of_the_two_clocks() -> None:
    known = learnt((100.0, 0.01, 4.0), (110.0, 2.0, 0.02))
    written, now = theirs(120.0), ours(120.0 + AHEAD + 30.0)
    alone = anchored(written, now, 115.0 + AHEAD, UNTRUSTED)
    assert (alone.earliest.boot, alone.latest.boot) == (115.0 + AHEAD, now.boot)
    both = anchored(written, now, 115.0 + AHEAD, UNTRUSTED, known)
    assert both.earliest.boot == pytest.approx(120.0 + AHEAD, abs=0.06)
    assert both.latest.boot == pytest.approx(120.0 + AHEAD, abs=0.06)
    assert both.earliest.boot <= 120.0 + AHEAD <= both.latest.boot


def test_a_value_that_was_there_at_the_start_is_dated_by_those_that_come_later() -> None:
    known = learnt((100.0, 60.0, None), (170.0, 0.01, 0.02))
    both = anchored(theirs(100.0), ours(160.0 + AHEAD), None, UNTRUSTED, known)
    assert both.earliest.boot == pytest.approx(100.0 + AHEAD, abs=0.06)


def test_what_is_known_holds_less_the_older_it_is() -> None:
    known = learnt((100.0, 0.0, 0.0))
    day = known.then(100.0 + AHEAD + 86_400.0)
    assert day.most - AHEAD == pytest.approx(86_400.0 * DRIFT)
    assert AHEAD - day.least == pytest.approx(86_400.0 * DRIFT)


@pytest.mark.parametrize("stood_still", [40.0, -40.0])
def test_after_a_host_stood_still_only_what_was_seen_since_counts(stood_still: float) -> None:
    """Theirs: it wrote later than its clock says. Ours: it seems to see what is written later."""
    known = learnt((100.0, 0.01, 0.01))
    moved = AHEAD + stood_still
    known = narrowed(known, theirs(120.0), ours(120.0 + moved + 0.01), 120.0 + moved - 3.0)
    assert known.least == pytest.approx(moved - 3.0)
    assert known.most == pytest.approx(moved + 0.01)


def test_no_value_was_written_after_it_was_seen() -> None:
    wrong = Ahead(AHEAD + 50.0, AHEAD + 60.0, 600.0)
    found = anchored(theirs(100.0), ours(100.0 + AHEAD + 1.0), None, UNTRUSTED, wrong)
    assert found.earliest.boot <= found.latest.boot <= 101.0 + AHEAD


def test_wall_clocks_that_surely_differ_by_more_than_is_configured_say_nothing() -> None:
    known = learnt((100.0, 0.01, 0.01))
    found = anchored(theirs(110.0, wall=-300.0), ours(110.0 + AHEAD + 1.0), None, UNTRUSTED, known)
    assert found.earliest.boot == pytest.approx(110.0 + AHEAD, abs=0.03)
    assert found.latest.boot == pytest.approx(110.0 + AHEAD, abs=0.03)
