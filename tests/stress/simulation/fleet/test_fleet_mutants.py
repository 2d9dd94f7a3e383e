# The simulation of fleets bites: each deliberate bug breaks a law in its schedule in shows.py, which holds without it.
# `make mutants` looks for them in seeds from the first too.
from __future__ import annotations

import pytest

from tests.stress.simulation.fleet.mutants import MUTANTS
from tests.stress.simulation.fleet.shows import shows
from tests.stress.simulation.fleet.simulation import simulate
from tests.stress.simulation.mutants import mutated


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_breaks_a_law(name: str) -> None:
    made = shows(name)
    assert simulate(made).broken is None, "it breaks a law without the bug"
    with mutated(MUTANTS[name]):
        broken = simulate(made).broken
    assert broken is not None
    assert "Error(" not in str(broken), "the bug does not fit the code any more, and breaks nothing but itself"
