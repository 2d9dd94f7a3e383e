# What the audit log costs: the same gets from a daemon that writes one and from a daemon that does not, in turns.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.fetches import Row, Turn, both, measured
from bench.processes import Daemon, brokerd, generator

LOADS = (
    ("kept connection, 1 client", 1, False),
    ("kept, 64 clients", 64, False),
    ("fresh, 8 clients", 8, True),
)


def evidence(folder: Path, grants: str, grant: str, rounds: int, seconds: float) -> Iterator[Row]:
    """A row for each load: subject with an audit log, yardstick without."""
    turns: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name, _, _ in LOADS}
    with ExitStack() as stack:
        daemons: list[Daemon] = []
        for choice in ("serve", "off"):
            (folder / choice).mkdir(mode=0o711)
            daemons.append(stack.enter_context(brokerd(folder / choice, grants, audit=choice)))
        load = stack.enter_context(generator())
        for number in range(rounds):
            for name, clients, fresh in LOADS:
                ours, theirs = (
                    partial(measured, load, each.process.pid, each.socket, grant, clients, fresh, seconds)
                    for each in daemons
                )
                turns[name].append(both(ours, theirs, swapped=bool(number % 2)))
    for name, pairs in turns.items():
        yield Row(name, *zip(*pairs, strict=True))
