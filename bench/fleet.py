# What a fleet costs a get of a living token: the same gets from a daemon that shares its grants through three etcds
# with TLS, and from one that has its own store alone, in turns.
from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from brokerd_client import Broker

from bench.fetches import Row, side_by_side
from bench.processes import Daemon, Failed, brokerd, generator
from tests.real.etcd.cluster import Cluster, running

LONGEST = 10.0  # seconds


def in_a_fleet(folder: Path, grants: str, grant: str, rounds: int, seconds: float) -> Iterator[Row]:
    """A row for each load: subject in a fleet, yardstick not. Raises Failed."""
    if shutil.which("etcd") is None:
        raise Failed("etcd is not installed (Debian: etcd-server)")
    with ExitStack() as stack:
        load, cluster = stack.enter_context(generator()), stack.enter_context(running(folder / "etcd"))
        daemons: list[Daemon] = []
        for name, text in (("shared", grants + _store(cluster, "one")), ("alone", grants)):
            (folder / name).mkdir(mode=0o711)
            daemons.append(stack.enter_context(brokerd(folder / name, text)))
        rows = side_by_side(load, daemons, grant, rounds, seconds)
    yield from rows


def seen(folder: Path, grants: str, names: Sequence[str]) -> list[float]:
    """For each grant: seconds from the answer to a refresh on one host until another host serves the new token. Raises
    Failed."""
    found = []
    with ExitStack() as stack:
        cluster = stack.enter_context(running(folder / "etcd"))
        hosts = list[Daemon]()
        for name in ("one", "two"):
            (folder / name).mkdir(mode=0o711)
            if hosts:
                shutil.copy(folder / "one" / "key", folder / name / "key")
            hosts.append(stack.enter_context(brokerd(folder / name, grants + _store(cluster, name))))
        other = stack.enter_context(Broker(hosts[1].socket, share=False))
        for grant in names:
            before = other.get(grant, wait=LONGEST).value
            hosts[0].call("refresh", grant=grant)
            began = time.perf_counter()
            while other.get(grant).value == before:
                if time.perf_counter() - began > LONGEST:
                    raise Failed(f"the other host did not see the new token of {grant} within {LONGEST:g} s")
            found.append(time.perf_counter() - began)
    return found


def _store(cluster: Cluster, name: str) -> str:
    urls = ", ".join(f'"{url}"' for url in cluster.urls)
    return f'\n[store]\netcd = [{urls}]\nfleet = "bench"\nname = "{name}"\nca_file = "{cluster.ca_file}"\n'
