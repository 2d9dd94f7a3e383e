# What a get costs over HTTP, beside the same get over MessagePack: the same daemon, caller, grant and connections.
from __future__ import annotations

from functools import partial

from bench.fetches import Row, Turn, both, measured
from bench.load import Load
from bench.processes import Daemon, Generator, computed, generator

HTTP_LOADS = (("kept, 1 client, over HTTP", 1), ("kept, 8 clients, over HTTP", 8))  # in words, clients at once


def over_http(daemon: Daemon, grant: str, rounds: int, seconds: float) -> list[Row]:
    """A row for each load; the second column is MessagePack's."""
    turns: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name, _ in HTTP_LOADS}
    with generator() as load:
        for number in range(rounds):
            for name, clients in HTTP_LOADS:
                ours = partial(_measured, load, daemon, grant, clients, seconds)
                theirs = partial(measured, load, daemon.process.pid, daemon.socket, grant, clients, False, seconds)
                turns[name].append(both(ours, theirs, swapped=bool(number % 2)))
    return [Row(name, *zip(*pairs, strict=True)) for name, pairs in turns.items()]


def _measured(load: Generator, daemon: Daemon, grant: str, clients: int, seconds: float) -> Turn:
    pid = daemon.process.pid
    before = computed(pid)
    found = load.measure(Load(daemon.http_socket, grant, clients, False, seconds, http=True))
    return Turn(found.per_second, found.p50, found.p99, (computed(pid) - before) / found.answers, found.busy)
