# What a hundred thousand grants cost: the start with nothing stored, first tokens over TLS with durable commits on one
# core, the start with everything stored, and the memory; and what a step of the schedule costs as grants become more.
from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import processes
from bench.processes import Daemon, Failed
from brokerd.core.timing.due_heap import Schedule
from tests.free_port import free_port

PROVIDERS, CONCURRENCY = 5, 16
LOOK = 0.5  # seconds between looks at the store
SLOWEST = 20.0  # tokens a second; with fewer something is wrong
SIZES = (1_000, 10_000, 100_000, 1_000_000)
STEPS = 100_000
PERIOD = 2_545.0  # seconds until a grant is due again


@dataclass(frozen=True)
class Start:
    """Seconds until the first answer, of computing and of all; MB in memory at most; where nothing was stored, the
    tokens that came in a second, and in a second of computing."""

    ready_after: float
    computed: float
    peak: float
    per_second: float | None = None
    per_computed: float | None = None


def starts(folder: Path, grants: int) -> tuple[Start, Start]:
    """The start with nothing stored, until every grant has a token, and the next one. Raises Failed."""
    with issuer(folder) as (port, authority):
        text = configuration(port, authority, grants)
        with processes.brokerd(folder, text) as daemon:
            for thread in Path(f"/proc/{daemon.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {min(os.sched_getaffinity(0))})
            speeds = tokens_per_second(daemon, folder, grants)
            first = Start(daemon.ready_after, daemon.computed, daemon.peak, *speeds)
        with processes.brokerd(folder, text) as daemon:
            daemon.call("hello")
            return first, Start(daemon.ready_after, daemon.computed, daemon.peak)


@contextmanager
def issuer(folder: Path) -> Iterator[tuple[int, Path]]:
    """A running bench/issuer.py: its port, and the authority that its certificate is from."""
    authority, port = trustme.CA(), free_port()
    certificate, ca = folder / "issuer.pem", folder / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(ca))
    with processes.process(sys.executable, "-m", "bench.issuer", str(port), str(certificate)) as started:
        processes.line(started)
        yield port, ca


def configuration(port: int, authority: Path, grants: int) -> str:
    providers = "".join(
        f'[providers.p{number}]\ndialect = "oauth2"\ntoken_url = "https://127.0.0.1:{port}/token"\n'
        f'ca_file = "{authority}"\nconcurrency = {CONCURRENCY}\n'
        for number in range(PROVIDERS)
    )
    tables = "".join(
        f'[grants.grant-{number:06}]\nprovider = "p{number % PROVIDERS}"\ngrant_type = "client_credentials"\n'
        f'scope = ["read"]\ncredentials = {{ client_id = "client-{number}", client_secret = "secret-of-{number}" }}\n'
        for number in range(grants)
    )
    return f'{providers}{tables}[[allow]]\ngrants = ["*"]\ncaller = {{ user = "nobody" }}\n'


def tokens_per_second(daemon: Daemon, folder: Path, grants: int) -> tuple[float, float]:
    """Of the clock and of computing, until each grant has a token in the store. Raises Failed."""
    path = folder / "state" / "brokerd.db"
    began, before, at_first = time.perf_counter(), daemon.computes, stored(path)
    while (there := stored(path)) < grants:
        if time.perf_counter() - began > 30 + grants / SLOWEST:
            raise Failed(f"only {there:,} of {grants:,} grants have a token")
        time.sleep(min(LOOK, grants / 10_000))
    computed = max(daemon.computes - before, 0.01)
    return (grants - at_first) / (time.perf_counter() - began), (grants - at_first) / computed


def stored(path: Path) -> int:
    """The records in the store; what was committed is there, so that the disk has it too."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
        return int(connection.execute("SELECT count(*) FROM record").fetchone()[0])


def steps() -> Iterator[tuple[int, float]]:
    """For each number of grants the microseconds of a step: one falls due and is planned again."""
    for grants in SIZES:
        schedule, now = Schedule(), 0.0
        for number in range(grants):
            schedule.set(str(number), PERIOD * number / grants)
        began = time.perf_counter()
        for number in range(STEPS):
            now = schedule.next() or now
            schedule.set(next(schedule.take_due(now)), now + PERIOD * (1 + 0.1 * (number % 7)))
        yield grants, 1e6 * (time.perf_counter() - began) / STEPS
