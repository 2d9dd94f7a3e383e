# Which failures get a line, decided with plain numbers: the first, a new reason, and ever fewer that sum up.
from __future__ import annotations

from itertools import count

import pytest

from brokerd.core import repeated_failures
from brokerd.core.repeated_failures import FIRST_GAP, LINES, MOST_CHANGES, Failing, LineBudget, RepeatedFailures
from brokerd.core.timing.moment import Moment

DAY = 86_400


def at(seconds: float) -> Moment:
    return Moment(1e9 + seconds, seconds, "boot")


def test_the_first_failure_is_said_at_once_and_equal_ones_at_growing_distances() -> None:
    failures, said = RepeatedFailures(), dict[float, Failing]()
    for second in range(0, DAY, 60):
        if (found := failures.failed("app", "corp", f"the provider answered 503, id {second}", at(second))) is not None:
            said[second] = found
    assert list(said) == [0, 600, 2_400, 7_800, 24_000, 72_600]
    assert (said[0].is_first, said[600].is_first, said[600].sums_up) == (True, False, True)
    assert said[72_600] == Failing(at(0), 72_600 // 60 + 1, sums_up=True)


def test_a_new_reason_is_said_at_once_but_not_without_end() -> None:
    failures = RepeatedFailures()
    failures.failed("app", "corp", "the provider answered 503", at(0))
    changed = failures.failed("app", "corp", "no route to host", at(1))
    assert changed == Failing(at(0), 2)
    words = (f"word {'x' * number}" for number in count(1))
    said = [failures.failed("app", "corp", next(words), at(2 + second)) for second in range(100)]
    assert sum(each is not None for each in said) == MOST_CHANGES - 1


def test_grants_that_fail_alike_are_summed_up_together() -> None:
    failures = RepeatedFailures()
    first = [failures.failed(f"g{number}", "corp", "invalid_client", at(number)) for number in range(200)]
    assert all(each is not None and each.is_first for each in first)
    later = [failures.failed(f"g{number}", "corp", "invalid_client", at(900 + number)) for number in range(200)]
    (summed,) = [each for each in later if each is not None]
    assert summed == Failing(at(0), 201, 200, sums_up=True)
    assert failures.failed("other", "corp", "invalid_scope", at(2_000)) == Failing(at(2_000), 1, is_first=True)


def test_what_works_again_is_said_with_how_long_it_failed_and_begins_from_new() -> None:
    failures = RepeatedFailures()
    assert failures.worked("app") is None
    for second in range(5):
        failures.failed("app", "corp", "no", at(second))
    assert failures.worked("app") == Failing(at(0), 5)
    assert failures.failed("app", "corp", "no", at(2 * FIRST_GAP)) == Failing(at(2 * FIRST_GAP), 1, is_first=True)


def test_who_is_forgotten_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_failures, "MOST", 3)
    failures = RepeatedFailures()
    for number in range(10):
        failures.failed(number, f"provider {'x' * number}", "no", at(number))
    assert (len(failures._members), len(failures._groups)) == (3, 3)


def test_a_user_has_so_many_lines_a_minute_and_takes_none_from_others() -> None:
    budget = LineBudget()
    said = [budget.left_out(1000, second / 100) for second in range(6_000)]
    assert said == [0] * LINES + [None] * (6_000 - LINES)
    assert budget.left_out(1001, 59.0) == 0
    assert budget.left_out(1000, 60.0) == 6_000 - LINES
    assert budget.left_out(1000, 60.0) == 0


def test_users_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_failures, "MOST_USERS", 10)
    budget = LineBudget()
    for uid in range(1_000):
        budget.left_out(uid, 0.0)
    assert len(budget._users) <= 10
