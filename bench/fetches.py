# What a get costs, beside what the same answer costs from a bare trio server, and what brokerctl costs beside a bare
# Python. Subject and yardstick take turns, and who is first changes, so that the machine's noise meets both.
from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.load import Load
from bench.processes import BIN, Daemon, Generator, bare, computed, generator, timed

LOADS = (  # in words, clients at once, whether each get has a connection of its own
    ("kept connection, 1 client", 1, False),
    ("kept, 8 clients", 8, False),
    ("kept, 64 clients", 64, False),
    ("fresh connections, 1 client", 1, True),
    ("fresh, 8 clients", 8, True),
)
SIDE_BY_SIDE = LOADS[::2]  # where two daemons are compared with each other
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """One measurement: gets per second; the rest in seconds, `computed` being the server's for one get; `busy`: the
    part of the time that the load itself was computing."""

    per_second: float
    p50: float
    p99: float
    computed: float
    busy: float


@dataclass(frozen=True)
class Row:
    """One load: the turns of brokerd and of the bare server, pair by pair."""

    name: str
    subject: Sequence[Turn]
    yardstick: Sequence[Turn]

    def ratio(self, field: str) -> float:
        """Brokerd's to the bare server's: the middle one of all pairs."""
        pairs = zip(self.subject, self.yardstick, strict=True)
        ratios: list[float] = [getattr(ours, field) / getattr(bare, field) for ours, bare in pairs]
        return statistics.median(ratios)


def fetches(daemon: Daemon, grant: str, folder: Path, rounds: int, seconds: float) -> list[Row]:
    """A row for each load. The bare server gives the answer that brokerd gives."""
    path = str(folder / "bare")
    turns: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name, _, _ in LOADS}
    with bare(path, daemon.call("get", grant=grant)) as yardstick, generator() as load:
        for number in range(rounds):
            for name, clients, fresh in LOADS:
                ours = partial(measured, load, daemon.process.pid, daemon.socket, grant, clients, fresh, seconds)
                theirs = partial(measured, load, yardstick.pid, path, grant, clients, fresh, seconds)
                turns[name].append(both(ours, theirs, swapped=bool(number % 2)))
    return [Row(name, *zip(*pairs, strict=True)) for name, pairs in turns.items()]


def by_library(daemon: Daemon, grant: str, folder: Path, rounds: int, seconds: float) -> Row:
    """The Python client library at brokerd, and a bare Python client at the bare server."""
    path, module = str(folder / "bare-too"), "bench.python_client"
    with (
        bare(path, daemon.call("get", grant=grant)) as yardstick,
        generator("library", module=module) as load,
        generator("bare", module=module) as other,
    ):
        ours = partial(measured, load, daemon.process.pid, daemon.socket, grant, 1, False, seconds)
        theirs = partial(measured, other, yardstick.pid, path, grant, 1, False, seconds)
        pairs = [both(ours, theirs, swapped=bool(number % 2)) for number in range(rounds)]
    return Row("by the library, kept", *zip(*pairs, strict=True))


def measured(load: Generator, pid: int, path: str, grant: str, clients: int, fresh: bool, seconds: float) -> Turn:
    """One turn at the server with that pid and socket."""
    before = computed(pid)
    found = load.measure(Load(path, grant, clients, fresh, seconds))
    return Turn(found.per_second, found.p50, found.p99, (computed(pid) - before) / found.answers, found.busy)


def starts(daemon: Daemon, grant: str, times: int) -> list[tuple[float, float]]:
    """Seconds of the whole processes `brokerctl get` and `python -c pass`, pair by pair. Raises Failed."""
    get = (str(BIN / "brokerctl"), "--socket", daemon.socket, "get", grant)
    nothing = (sys.executable, "-c", "pass")
    return [both(partial(timed, get), partial(timed, nothing), swapped=bool(n % 2)) for n in range(times)]


def table(rows: Sequence[Row], subject: str = "brokerd", yardstick: str = "bare trio server") -> str:
    """For people: the middle one of each measurement's turns."""
    heads = ("req/s", "p50 µs", "p99 µs", "CPU µs")
    lines = [f"{'':28}{subject:>32}   {yardstick:>32}   {'first / second':>24}"]
    lines.append(f"{'get':28}" + "   ".join(["".join(f"{head:>8}" for head in heads)] * 2 + [RATIO_HEADS]))
    for row in rows:
        ratios = "".join(f"{row.ratio(field):6.2f}" for field in FIELDS)
        lines.append(f"{row.name:28}{_middle(row.subject)}   {_middle(row.yardstick)}   {ratios}")
    return "\n".join(lines)


def _middle(turns: Sequence[Turn]) -> str:
    cells = (
        statistics.median(getattr(turn, field) for turn in turns) * (1 if field == "per_second" else 1e6)
        for field in FIELDS
    )
    return "".join(f"{cell:8,.0f}" for cell in cells)


def both(subject: Callable[[], T], yardstick: Callable[[], T], *, swapped: bool) -> tuple[T, T]:
    """Both of a pair, one after the other."""
    if swapped:
        last = yardstick()
        return subject(), last
    return subject(), yardstick()


FIELDS = ("per_second", "p50", "p99", "computed")
RATIO_HEADS = "".join(f"{head:>6}" for head in ("req/s", "p50", "p99", "CPU"))


def side_by_side(load: Generator, daemons: Sequence[Daemon], grant: str, rounds: int, seconds: float) -> list[Row]:
    """A row for each of SIDE_BY_SIDE: the first of two daemons is the subject, the second the yardstick, in turns."""
    turns: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name, _, _ in SIDE_BY_SIDE}
    for number in range(rounds):
        for name, clients, fresh in SIDE_BY_SIDE:
            ours, theirs = (
                partial(measured, load, each.process.pid, each.socket, grant, clients, fresh, seconds)
                for each in daemons
            )
            turns[name].append(both(ours, theirs, swapped=bool(number % 2)))
    return [Row(name, *zip(*pairs, strict=True)) for name, pairs in turns.items()]
