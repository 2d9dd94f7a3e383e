# Some lives of fleets in every run of the tests; many more with `make simulate-fleet SEEDS=…`.
from __future__ import annotations

import pytest

from tests.stress.simulation.fleet.schedule import drawn
from tests.stress.simulation.fleet.simulation import report, shrink, simulate

SEEDS = 3


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_law_holds_in_the_first_seeds(seed: int) -> None:
    broken = simulate(drawn(seed)).broken
    if broken is not None:
        pytest.fail(report(seed, broken, shrink(drawn(seed), broken.law)), pytrace=False)


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert simulate(drawn(0)) == simulate(drawn(0))
