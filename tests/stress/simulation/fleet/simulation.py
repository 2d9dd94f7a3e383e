# Runs the schedule of a fleet to its end, shrinks one that breaks a law, and says how to run it again.
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.stress.simulation.fleet.schedule import Schedule, drawn
from tests.stress.simulation.fleet.world import World
from tests.stress.simulation.laws import Broken
from tests.stress.simulation.simulation import deterministic, folder, shortest, told


@dataclass(frozen=True)
class Result:
    """`broken`: the first law that did not hold; `checked`: how often each was looked at."""

    broken: Broken | None
    checked: Counter[str]
    hosts: int
    crashes: int
    virtual: float
    history: tuple[str, ...]


def simulate(schedule: Schedule) -> Result:
    """Run it. The same schedule gives the same result, whatever else happens on the machine."""
    with folder() as place:
        world = World(schedule, place)
        deterministic(world, schedule.seed)
    witness = world.witness
    return Result(witness.verdict, witness.checked, len(world.hosts), world.crashes, world.ended, tuple(world.history))


def shrink(schedule: Schedule, law: str) -> list[int]:
    """Events that still break the same law, as numbers in the schedule."""

    def breaks(numbers: list[int]) -> bool:
        broken = simulate(schedule.only(numbers)).broken
        return broken is not None and broken.law == law

    return shortest(len(schedule.events), breaks)


def report(seed: int, broken: Broken, kept: list[int] | None, mutant: str | None = None) -> str:
    """What a person needs: the law, the schedule, the command."""
    words = told("tests.stress.simulation.fleet", drawn(seed), broken, kept, mutant)
    return f"{words} --history"
