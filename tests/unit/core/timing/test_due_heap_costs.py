# What a step of the schedule costs from a thousand to a million grants: comparisons of times, counted and not timed.
from __future__ import annotations

from collections.abc import Iterator
from math import log2
from random import Random
from typing import ClassVar

import pytest

from brokerd.core.timing.due_heap import Schedule

STEPS = 3_000
SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST = 8  # comparisons for each level: two operations of a heap, each with two comparisons of two tuples
PERIOD = 2_545.0  # seconds until a grant is due again, on average


class Time(float):
    """A time that counts how often times are compared."""

    compared: ClassVar[int] = 0

    def __lt__(self, other: float) -> bool:
        Time.compared += 1
        return float.__lt__(self, other)

    def __le__(self, other: float) -> bool:
        Time.compared += 1
        return float.__le__(self, other)

    def __eq__(self, other: object) -> bool:
        Time.compared += 1
        return float.__eq__(self, other)  # type: ignore[no-any-return]

    __hash__ = float.__hash__


def steps(schedule: Schedule, count: int, *, twice: bool) -> Iterator[int]:
    """What each step costs: a grant falls due and is planned again. `twice`: a caller moved that plan before, so that
    an old entry stays in the heap."""
    chance = Random(2)
    now = schedule.next()
    assert now is not None
    for _ in range(count):
        before = Time.compared
        name = next(schedule.take_due(now))
        if twice:
            schedule.set(name, Time(now + PERIOD * chance.random()))
        schedule.set(name, Time(now + PERIOD * (0.94 + 0.12 * chance.random())))
        following = schedule.next()
        assert following is not None
        now = Time(following)
        yield Time.compared - before


def level_cost(grants: int, count: int = STEPS, *, twice: bool = False) -> float:
    """Of a step, in comparisons for each level of the heap, on average."""
    schedule = Schedule()
    for number in range(grants):  # in the order of time, which costs least
        schedule.set(str(number), Time(PERIOD * number / grants))
    return sum(steps(schedule, count, twice=twice)) / count / log2(grants)


def test_a_step_costs_the_logarithm_of_the_number_of_grants() -> None:
    found = [level_cost(grants) for grants in SIZES]
    assert max(found) < 1.3 * min(found)
    assert max(found) < MOST


@pytest.mark.parametrize("grants", [1_000, 3_000])
def test_plans_that_move_cost_no_more(grants: int) -> None:
    """Old entries are thrown away all at once, and seldom: the steps are so many that this happens."""
    assert level_cost(grants, 8 * grants, twice=True) < MOST
