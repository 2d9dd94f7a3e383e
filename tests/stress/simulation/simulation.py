# Runs a schedule to its end, on virtual time and deterministic scheduling; shrinks one that breaks a law.
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trio

from tests.stress.simulation.clock import VirtualTime
from tests.stress.simulation.laws import Broken
from tests.stress.simulation.schedule import Drawn, Schedule, drawn
from tests.stress.simulation.world import World

BUSY = 30.0  # seconds of processor time: no simulation takes a fifth of that; one whose tasks never come to an end does
STILL = 300.0  # seconds of real time: only tasks that nothing wakes take that long
AGAIN = 2.0  # seconds until one that did not end when it was asked to is torn down
SHRINKS_MOST = 250  # runs,
SHRINKS_LONGEST = 300.0  # and seconds of processor time: one that hangs takes long
ENDS = "no fault of the simulation, which comes to its end"


class Hangs(BaseException):
    """The simulation does not come to its end. Never caught by brokerd."""


@dataclass(frozen=True)
class Result:
    """`broken`: the first law that did not hold; `checked`: how often each was looked at."""

    broken: Broken | None
    checked: Counter[str]
    lives: int
    crashes: int
    virtual: float


def simulate(schedule: Schedule) -> Result:
    """Run it. The same schedule gives the same result, whatever else happens on the machine."""
    with folder() as place:
        world = World(schedule, place)
        deterministic(world, schedule.seed)
    return Result(world.laws.verdict, world.laws.checked, world.lives, world.crashes, world.ended)


class Verdicts(Protocol):
    """What is known of the laws: the first one that was broken."""

    verdict: Broken | None

    def hold(self, law: str, holds: bool, what: str) -> None: ...


class Runnable(Protocol):
    """A world, of one host or of many."""

    ended: float

    @property
    def laws(self) -> Verdicts: ...

    async def run(self) -> None: ...


def deterministic(world: Runnable, seed: int) -> None:
    """Run a world on virtual time.

    trio shuffles the tasks that are ready in each turn by a random generator of its own. As its integration with
    hypothesis does, that generator is seeded, and tasks are put in the order of their creation before the shuffle.
    """
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    try:
        with _watched(world):
            trio.run(world.run, clock=VirtualTime())
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # is found as a broken law is, and a row of seeds goes on
        world.laws.verdict = world.laws.verdict or Broken(ENDS, _told(fault), world.ended)
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        _run._r.seed()


def _told(fault: BaseException) -> str:
    """The first cause, and where it was."""
    while inner := (fault.exceptions[0] if isinstance(fault, BaseExceptionGroup) else fault.__cause__):
        fault = inner
    where = [f"{each.name}, {each.filename}:{each.lineno}" for each in traceback.extract_tb(fault.__traceback__)]
    return f"{fault!r} in {' < '.join(where[-3:][::-1])}"


def shrink(schedule: Schedule, law: str) -> list[int]:
    """Events that still break the same law, as numbers in the schedule."""

    def breaks(numbers: list[int]) -> bool:
        broken = simulate(schedule.only(numbers)).broken
        return broken is not None and broken.law == law

    return shortest(len(schedule.events), breaks)


def shortest(events: int, breaks: Callable[[list[int]], bool]) -> list[int]:
    """Of so many events some that still break: greedily, in halves and then one by one."""
    kept = list(range(events))
    runs, size = 0, max(1, len(kept) // 2)
    end = time.process_time() + SHRINKS_LONGEST

    def is_enough() -> bool:
        return runs >= SHRINKS_MOST or time.process_time() > end

    while not is_enough():
        before = len(kept)
        start = 0
        while start < len(kept) and not is_enough():
            fewer = kept[:start] + kept[start + size :]
            runs += 1
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
    return told("tests.stress.simulation", drawn(seed), broken, kept, mutant)


def told(module: str, schedule: Drawn[Any], broken: Broken, kept: list[int] | None, mutant: str | None) -> str:
    """The same for the simulation that this module runs."""
    numbers = range(len(schedule.events)) if kept is None else kept
    lines = [f"seed {schedule.seed} breaks {broken}", f"  {schedule.setup}"]
    lines += [f"  {number:3} {schedule.events[number]}" for number in numbers]
    keep = "" if kept is None else f" --keep {','.join(map(str, kept)) or '-'}"
    option = f" --mutant {mutant}" if mutant else ""
    lines.append(f"replay: .venv/bin/python -m {module} --seed {schedule.seed}{keep}{option}")
    return "\n".join(lines)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A state directory in memory, always at the same place for a process: paths stand in the configuration."""
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    place = base / f"brokerd-simulation-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def _watched(world: Runnable) -> Iterator[None]:
    is_asked = False

    def hangs(number: int, frame: object) -> None:
        nonlocal is_asked
        words = "its tasks never end" if number == signal.SIGPROF else "nothing wakes its tasks"
        if is_asked:
            raise Hangs(words)
        is_asked = True
        trio.lowlevel.current_trio_token().run_sync_soon(world.laws.hold, ENDS, False, words)

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, BUSY), (signal.SIGALRM, signal.ITIMER_REAL, STILL))
    before = [signal.signal(number, hangs) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds, AGAIN)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0.0)
            signal.signal(number, handler)
