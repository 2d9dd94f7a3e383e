# Some seeds of the simulation in every run of the tests; many more with `make simulate SEEDS=…`.
from __future__ import annotations

import pytest

from tests.simulation.schedule import drawn
from tests.simulation.simulation import report, shrink, simulate

SEEDS = 8


def test_every_law_holds_in_the_first_seeds() -> None:
    for seed in range(SEEDS):
        broken = simulate(drawn(seed)).broken
        if broken is not None:
            pytest.fail(report(seed, broken, shrink(drawn(seed), broken.law)), pytrace=False)


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert simulate(drawn(3)) == simulate(drawn(3))
