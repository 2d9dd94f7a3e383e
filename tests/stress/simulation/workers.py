# Seeds on several processes. Each seed is a world of its own, so that the results, which come in the order of the
# seeds, are the same on however many.
from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from tests.forked import die_with_parent
from tests.stress.simulation.mutants import mutated
from tests.stress.simulation.schedule import drawn
from tests.stress.simulation.simulation import Result, simulate

AHEAD = 4  # seeds for each process that are handed out before their results are asked for


class Workers:
    """Processes that simulate; a context manager. Whoever leaves it early waits for the seeds at work, for seconds."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def simulate(self, seeds: Iterable[int], mutant: str | None = None) -> Iterator[tuple[int, Result]]:
        """Each seed with its result, in their order."""
        seeds, waiting = iter(seeds), deque[tuple[int, Future[Result]]]()
        try:
            while True:
                for seed in islice(seeds, AHEAD * self._jobs - len(waiting)):
                    waiting.append((seed, self._pool.submit(_simulate, seed, mutant)))
                if not waiting:
                    return
                seed, future = waiting.popleft()
                yield seed, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def seeds_for(seconds: float, first: int) -> Iterator[int]:
    """As many seeds, from the first, as fit in the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield first
        first += 1


def _simulate(seed: int, mutant: str | None) -> Result:
    try:
        with mutated(mutant) if mutant else contextlib.nullcontext():
            return simulate(drawn(seed))
    except BaseException as error:
        error.add_note(f"in the simulation of seed {seed}")
        raise


def _begin() -> None:
    die_with_parent()  # else they go on with their seeds
    gc.freeze()  # what was imported is never garbage
    gc.set_threshold(20_000, 20, 100)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
