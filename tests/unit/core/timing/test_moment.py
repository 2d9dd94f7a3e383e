# Two clocks: within a boot CLOCK_BOOTTIME is the truth, across boots the wall clock, if it can be believed (law 8).
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.timing.moment import Moment, seconds_until, wall_time
from tests.unit.core.values import DAY, NOW

seconds = st.floats(-1e9, 1e9)


def test_an_anchor_of_this_boot_is_measured_by_the_boot_clock_whatever_the_wall_clock_says() -> None:
    anchor = NOW.after(100)
    stepped = NOW._replace(wall=NOW.wall - 30 * DAY, boot=NOW.boot + 40, trusted=False)
    assert seconds_until(anchor, stepped) == pytest.approx(60)


def test_an_anchor_of_another_boot_is_measured_by_the_wall_clock() -> None:
    anchor = NOW.after(100)
    rebooted = Moment(NOW.wall + 40, 12.0, "boot-2")
    assert seconds_until(anchor, rebooted) == pytest.approx(60)


def test_an_anchor_of_another_boot_has_passed_while_the_wall_clock_cannot_be_trusted() -> None:
    rebooted = Moment(NOW.wall - 40, 12.0, "boot-2", trusted=False)
    assert seconds_until(NOW.after(10 * DAY), rebooted) == -math.inf


def test_suspended_time_counts() -> None:
    assert seconds_until(NOW.after(3_600), NOW._replace(boot=NOW.boot + 7_200)) == pytest.approx(-3_600)


def test_a_wall_time_is_told_on_the_clock_as_it_goes_now() -> None:
    anchor = NOW.after(100)
    assert wall_time(anchor, NOW) == NOW.wall + 100
    stepped = NOW._replace(wall=NOW.wall + 7_200)  # the clock was two hours behind when the token came
    assert wall_time(anchor, stepped) == NOW.wall + 7_300
    assert wall_time(anchor, Moment(NOW.wall + 7_200, 1.0, "boot-2")) == NOW.wall + 100


def test_a_wall_time_is_told_to_the_hundredth() -> None:
    anchor = NOW.after(0.128)
    assert wall_time(anchor, NOW) == NOW.wall + 0.13
    assert wall_time(anchor, Moment(NOW.wall, 1.0, "boot-2")) == NOW.wall + 0.13


@given(seconds, seconds, st.booleans())
def test_what_is_so_many_seconds_after_an_anchor_is_so_many_seconds_away(
    shift: float, passed: float, rebooted: bool
) -> None:
    anchor = NOW.after(shift)
    now = NOW.after(passed)
    if rebooted:
        now = now._replace(boot=3.0, boot_id="boot-2")
    assert seconds_until(anchor, now) == pytest.approx(shift - passed, abs=1e-5)


@given(seconds, st.booleans())
def test_after_keeps_boot_and_trust(shift: float, trusted: bool) -> None:
    later = NOW._replace(trusted=trusted).after(shift)
    assert (later.boot_id, later.trusted) == (NOW.boot_id, trusted)
