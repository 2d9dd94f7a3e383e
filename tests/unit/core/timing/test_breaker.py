# A provider that seems to be down gets one probe at a time, and everybody back as soon as it answers (law 7).
from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.timing.breaker import LONGEST_WAIT, PROBE, THRESHOLD, Breaker, failed, probing, succeeded
from brokerd.core.timing.moment import Moment
from tests.unit.core.values import NOW


def after_failures(number: int, jitter: float = 0.0) -> Breaker:
    return functools.reduce(lambda breaker, _: failed(breaker, NOW, jitter), range(number), Breaker())


def test_a_few_failures_hold_nobody_back() -> None:
    assert after_failures(THRESHOLD - 1).wait(NOW) == 0


def test_failures_in_a_row_shut_it_longer_and_longer() -> None:
    waits = [after_failures(THRESHOLD + n).wait(NOW) for n in range(8)]
    assert waits == [4, 8, 16, 32, 64, 128, 256, 300]


def test_any_answer_opens_it_at_once() -> None:
    assert succeeded(after_failures(20)) == Breaker()


def test_a_success_among_failures_starts_the_count_anew() -> None:
    breaker = after_failures(THRESHOLD - 1)
    assert failed(succeeded(breaker), NOW, 0.0).wait(NOW) == 0


def test_while_a_probe_is_out_nobody_else_sends() -> None:
    shut = after_failures(THRESHOLD)
    due = NOW.after(shut.wait(NOW))
    assert shut.wait(due) == 0
    probed = probing(shut, due)
    assert probed.wait(due) == PROBE
    assert probed.wait(due.after(PROBE)) == 0  # a probe that never came back does not hold it for ever
    assert probed.failures == shut.failures


def test_an_exchange_with_a_provider_that_is_up_is_no_probe() -> None:
    assert probing(after_failures(1), NOW) == after_failures(1)


def test_an_outage_of_before_a_reboot_does_not_hold_for_ever() -> None:
    shut = after_failures(THRESHOLD)
    the_wall_clock_fell_back = Moment(NOW.wall - 10**8, 3.0, "boot-2")
    assert shut.wait(the_wall_clock_fell_back) == 0
    assert shut.wait(the_wall_clock_fell_back._replace(trusted=False)) <= 0


@given(st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_no_outage_holds_longer_than_the_longest_wait(number: int, jitter: float) -> None:
    assert 0 <= after_failures(number, jitter).wait(NOW) <= LONGEST_WAIT
