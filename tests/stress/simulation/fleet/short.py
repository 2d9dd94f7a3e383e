# Schedules of a few events, written by hand.
from __future__ import annotations

from tests.stress.simulation.fleet.schedule import Schedule, Setup
from tests.stress.simulation.schedule import Event, ProviderSetup


def schedule(
    seed: int,
    *events: Event,
    hosts: tuple[float, ...] = (0.0, 0.0, 0.0),
    latency: float = 0.02,
    horizon: float = 240.0,
    **setup: object,
) -> Schedule:
    """`hosts`: by how many seconds the clock of each is wrong; `latency`: to etcd."""
    provider = ProviderSetup(**{"lifetime": 300.0, "latency": 0.05, **setup})  # type: ignore[arg-type]
    made = Setup(hosts, {"one": provider, "two": provider}, latency, keeps_deletes=True)
    return Schedule(seed, made, (IMPORT, *events), horizon)


def at(time: float, what: str, **values: object) -> Event:
    return Event(time, what, values)


IMPORT = at(8.0, "import", host="host-1", grant="app2")
