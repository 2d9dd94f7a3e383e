# Runs a schedule to its end, on virtual time and deterministic scheduling; shrinks one that breaks a law.
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio
from trio.testing import MockClock

from tests.simulation.laws import Broken
from tests.simulation.schedule import Schedule, drawn
from tests.simulation.world import World

HUNG = 60  # seconds of real time: no simulation takes a fifth of that; a task that nothing wakes does
SHRINKS_MOST = 250  # runs


@dataclass(frozen=True)
class Result:
    """`broken`: the first law that did not hold; `checked`: how often each was looked at."""

    broken: Broken | None
    checked: Counter[str]
    lives: int
    crashes: int
    virtual: float


def simulate(schedule: Schedule) -> Result:
    """Run it. The same schedule gives the same result, whatever else happens on the machine.

    trio shuffles the tasks that are ready in each turn by a random generator of its own. As its integration with
    hypothesis does, that generator is seeded, and tasks are put in the order of their creation before the shuffle.
    """
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(schedule.seed)
    with _folder() as folder, _watched():
        try:
            return trio.run(_run_world, schedule, folder, clock=MockClock(autojump_threshold=0))
        finally:
            _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
            _run._r.seed()


async def _run_world(schedule: Schedule, folder: Path) -> Result:
    world = World(schedule, folder)
    await world.run()
    return Result(world.laws.verdict, world.laws.checked, world.lives, world.crashes, world.clock.true())


def shrink(schedule: Schedule, law: str) -> list[int]:
    """Events that still break the same law, as numbers in the schedule: greedily, in halves and then one by one."""
    kept = list(range(len(schedule.events)))
    runs, size = 0, max(1, len(kept) // 2)

    def breaks(numbers: list[int]) -> bool:
        nonlocal runs
        runs += 1
        broken = simulate(schedule.only(numbers)).broken
        return broken is not None and broken.law == law

    while runs < SHRINKS_MOST:
        before = len(kept)
        start = 0
        while start < len(kept) and runs < SHRINKS_MOST:
            fewer = kept[:start] + kept[start + size :]
            if breaks(fewer):
                kept = fewer
            else:
                start += size
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return kept


def report(seed: int, broken: Broken, kept: list[int] | None, mutant: str | None = None) -> str:
    """What a person needs: the law, the schedule, the command."""
    schedule = drawn(seed)
    numbers = range(len(schedule.events)) if kept is None else kept
    lines = [f"seed {seed} breaks {broken}", f"  {schedule.setup}"]
    lines += [f"  {number:3} {schedule.events[number]}" for number in numbers]
    keep = "" if kept is None else f" --keep {','.join(map(str, kept)) or '-'}"
    option = f" --mutant {mutant}" if mutant else ""
    lines.append(f"replay: .venv/bin/python -m tests.simulation --seed {seed}{keep}{option}")
    return "\n".join(lines)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A state directory in memory, always at the same place for a process: paths stand in the configuration."""
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    folder = base / f"brokerd-simulation-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    def hung(number: int, frame: object) -> None:
        raise RuntimeError(f"the simulation hangs: nothing wakes its tasks, for {HUNG} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HUNG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
