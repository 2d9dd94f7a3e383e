# What a get of a cached token costs while somebody else does his worst (bench/crowd.py), beside what it costs while
# nobody does anything. Both take turns, so that the machine's noise meets both.
from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bench.crowd import PARTS
from bench.load import Load, Measured
from bench.processes import Daemon, Failed, generator, line, process


@dataclass(frozen=True)
class Pressure:
    """Pairs of turns, idle and under load; what the crowd did in all of them."""

    pairs: list[tuple[Measured, Measured]]
    did: Counter[str]

    def middle(self, field: str) -> tuple[float, float, float]:
        """Idle, under load, and the second to the first: of each the middle one of all pairs."""
        values: list[tuple[float, float]] = [(getattr(a, field), getattr(b, field)) for a, b in self.pairs]
        idle, loaded = zip(*values, strict=True)
        ratio = statistics.median(under / alone for alone, under in values)
        return statistics.median(idle), statistics.median(loaded), ratio


def pressure(daemon: Daemon, grant: str, rounds: int, seconds: float, *, fresh: bool) -> Pressure:
    """One client, on a connection that it keeps or each time on a fresh one. Raises Failed."""
    load = Load(daemon.socket, grant, 1, fresh, seconds)
    found = Pressure([], Counter())
    with generator() as client:
        for _ in range(rounds):
            idle = client.measure(load)
            with _crowd(daemon.socket, grant, found.did):
                found.pairs.append((idle, client.measure(load)))
    return found


@contextlib.contextmanager
def _crowd(path: str, grant: str, did: Counter[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        command = (sys.executable, "-m", "bench.crowd")
        parts = [stack.enter_context(process(*command, part, path, grant)) for part in PARTS]
        for part in parts:
            if line(part) != b"ready\n":
                raise Failed("the crowd did not gather")
        yield
        for part in parts:
            assert part.stdin is not None
            part.stdin.write(b"\n")
            part.stdin.flush()
            did.update(json.loads(line(part)))
