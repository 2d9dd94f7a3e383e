# How long failures keep a grant away: growing, never below what the provider asked for, never without end (law 7).
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.timing.backoff import LONGEST, LONGEST_AHEAD, LONGEST_ASKED, SPREAD, doubted_delay, retry_delay
from tests.unit.core.values import DAY, HOUR

failures = st.integers(1, 10**6)
jitters = st.floats(0, 1, exclude_max=True)
asked = st.none() | st.floats(0, 10 * LONGEST_ASKED)


def test_the_delay_doubles_from_a_second_to_five_minutes() -> None:
    assert [retry_delay(n, None, 0.0) for n in range(1, 11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


@given(failures, asked, jitters)
def test_a_delay_is_never_below_what_the_provider_asked_for_nor_a_tenth_above(
    n: int, after: float | None, jitter: float
) -> None:
    delay = retry_delay(n, after, jitter)
    if after is None or after < 1:
        assert 1.0 <= delay <= LONGEST
    else:
        assert min(after, LONGEST_ASKED) <= delay <= min(after, LONGEST_ASKED) * 1.1


@given(failures, asked, jitters)
def test_one_more_failure_never_shortens_the_delay(n: int, after: float | None, jitter: float) -> None:
    assert retry_delay(n + 1, after, jitter) >= retry_delay(n, after, jitter)


def test_jitter_parts_grants_that_failed_together() -> None:
    assert {retry_delay(8, None, jitter) for jitter in (0.0, 0.5, 0.9)} == {128, 144, 156.8}
    assert {retry_delay(10, None, jitter) for jitter in (0.0, 0.5, 0.9)} == {300}, "five minutes at most"
    assert retry_delay(1, 60.0, 0.5) == 63.0  # also those that were told the same Retry-After


def test_a_day_that_was_asked_for_is_not_made_much_longer() -> None:
    assert retry_delay(9, DAY, 0.99) < 1.1 * DAY


def test_a_retry_after_of_a_century_is_taken_for_a_mistake() -> None:
    assert retry_delay(1, 100 * 365 * DAY, 0.0) == DAY


def test_where_nobody_waits_the_delay_grows_to_a_quarter_of_an_hour() -> None:
    assert [retry_delay(n, None, 0.0, LONGEST_AHEAD) for n in (9, 10, 11, 10_000)] == [256, 512, 900, 900]


def test_a_doubted_password_waits_a_quarter_of_an_hour_and_then_an_hour_each_time() -> None:
    assert [doubted_delay(n, 0.0) for n in (1, 2, 3, 10_000)] == [HOUR / 4, HOUR, HOUR, HOUR]


@given(failures, jitters)
def test_a_doubted_password_never_waits_for_less(n: int, jitter: float) -> None:
    assert HOUR / 4 <= doubted_delay(n, jitter) <= HOUR * (1 + SPREAD)
