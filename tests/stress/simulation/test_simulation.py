# Some seeds of the simulation in every run of the tests; many more with `make simulate SEEDS=…`.
from __future__ import annotations

import pytest
import trio

from tests.stress.simulation import simulation
from tests.stress.simulation.schedule import drawn
from tests.stress.simulation.simulation import ENDS, report, shrink, simulate
from tests.stress.simulation.world import World

SEEDS = 8


def test_every_law_holds_in_the_first_seeds() -> None:
    for seed in range(SEEDS):
        broken = simulate(drawn(seed)).broken
        if broken is not None:
            pytest.fail(report(seed, broken, shrink(drawn(seed), broken.law)), pytrace=False)


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert simulate(drawn(3)) == simulate(drawn(3))


def test_a_seed_that_raises_counts_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty(world: World) -> None:
        raise LookupError("of the simulation's own")

    monkeypatch.setattr(World, "run", faulty)
    broken = simulate(drawn(3)).broken
    assert broken is not None
    assert broken.law == ENDS
    assert "LookupError" in broken.what


async def _sleep(world: World) -> None:
    while True:
        await trio.sleep(1.0)


async def _wait(world: World) -> None:
    await trio.Event().wait()


@pytest.mark.parametrize("endless", [_sleep, _wait])
def test_a_seed_that_never_ends_counts_as_broken(endless: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "_happen", endless)
    monkeypatch.setattr(simulation, "BUSY", 1.0)
    monkeypatch.setattr(simulation, "STILL", 3.0)
    broken = simulate(drawn(3)).broken
    assert broken is not None
    assert broken.law == ENDS
