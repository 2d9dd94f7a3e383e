# What happens in one life of a fleet: its setup and a list of events, drawn from the seed before anything runs. Data
# only: events.py does what an event says.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.stress.simulation.schedule import Drawn, Event, ProviderSetup

LIFETIMES = (60.0, 120.0, 300.0, 600.0)
GRANTS = {"app": "one", "app2": "two", "svc": "two"}  # the provider of each
ISSUED = ("svc",)  # whose tokens are got by client credentials
RENEWED = ("app", "app2")  # whose single-use refresh tokens must not be sent twice


@dataclass(frozen=True)
class Setup:
    """`offsets`: by how many seconds the clock of each host is wrong. `latency`: to etcd, at most; `keeps_deletes`: as
    in etcd from 3.5.15 on."""

    offsets: tuple[float, ...]
    providers: dict[str, ProviderSetup]
    latency: float
    keeps_deletes: bool

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(f"host-{number}" for number in range(len(self.offsets)))

    @property
    def longest(self) -> float:
        return max(each.lifetime for each in self.providers.values())


class Schedule(Drawn[Setup]):
    """Of a fleet."""


def drawn(seed: int) -> Schedule:
    """The schedule of a seed."""
    random = Random(f"fleet {seed}")
    setup = _setup(random)
    horizon = max(240.0, setup.longest * random.uniform(1.5, 3))
    weights = [weight * random.choice((0.0, 0.5, 1.0, 1.0, 3.0)) for weight, _ in KINDS]
    weights[0] = max(weights[0], 5.0)
    events = [Event(8.0, "import", {"host": random.choice(setup.hosts), "grant": grant}) for grant in RENEWED]
    at = 10.0
    for _ in range(random.randint(10, 60)):
        at = at + random.expovariate(0.5) if random.random() < 0.5 else random.uniform(10.0, horizon)
        _, kind = random.choices(KINDS, weights)[0]
        what, values = kind(random, setup)
        events.append(Event(round(min(at, horizon), 3), what, values))
    return Schedule(seed, setup, tuple(sorted(events, key=lambda event: event.at)), horizon)


def _setup(random: Random) -> Setup:
    lifetime = random.choice(LIFETIMES)

    def provider(grace: float) -> ProviderSetup:
        latency = random.choice((0.05, 0.5, 3.0))
        return ProviderSetup(lifetime * random.choice((1.0, 1.0, 1.5)), latency, grace=grace)

    offsets = tuple(random.choice((0.0, random.uniform(-60.0, 60.0))) for _ in range(random.choice((3, 3, 4, 5, 7))))
    providers = {"one": provider(0.0), "two": provider(random.choice((0.0, 0.0, 10.0, 60.0)))}
    return Setup(offsets, providers, random.choice((0.002, 0.02, 0.2)), random.random() < 0.5)


Kind = Callable[[Random, Setup], tuple[str, dict[str, object]]]


def _get(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"host": random.choice((*setup.hosts, "all")), "grant": random.choice(tuple(GRANTS))}
    values["wait"] = random.choice((0.0, 1.0, 10.0, 60.0))
    if random.random() < 0.3:
        values["min_ttl"] = random.choice((0.1, 0.3, 0.5))  # of the lifetime
    if random.random() < 0.3:
        values["refused"] = True
    return "get", values


def _by_hand(what: str) -> Kind:
    def kind(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
        grant = random.choice(tuple(GRANTS) if what == "refresh" else RENEWED)
        return what, {"host": random.choice(setup.hosts), "grant": grant}

    return kind


def _refresh_on_all(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "refresh", {"host": "all", "grant": random.choice(tuple(GRANTS))}


def _fault(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    kind = random.choice(FAULTS)
    values: dict[str, object] = {"provider": random.choice(tuple(setup.providers)), "kind": kind}
    values["requests"] = random.choice((1, 1, 2, 4))
    if kind in ("late", "late-before"):
        values["seconds"] = random.choice((10.0, 20.0, 50.0, 100.0))
    if kind in ("429", "503"):
        values["seconds"] = random.choice((None, 2.0, 30.0, 120.0))
    return "fault", values


def _crash(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"host": random.choice(setup.hosts), "where": random.choice(("now", *PLACES))}
    values["down"] = random.choice((0.1, 1.0, 20.0, 300.0))
    values["reboots"] = random.random() < 0.3
    return "crash", values


def _pause(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"host": random.choice(setup.hosts), "where": random.choice(("now", *PLACES, WINDOW))}
    values["seconds"] = random.choice((5.0, 16.0, 20.0, 60.0, 200.0, 500.0))
    return "pause", values


def _cut(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"host": random.choice(setup.hosts), "where": random.choice(("now", "now", *PLACES))}
    values["lasts"] = random.choice((2.0, 8.0, 20.0, 60.0, 400.0))
    return "cut", values


def _etcd_fault(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"kind": random.choice(("lost-before", "lost-after", "lost-after", "later", "refused"))}
    values["host"] = random.choice((*setup.hosts, None))
    values["requests"] = random.choice((1, 1, 2, 5))
    values["seconds"] = random.choice((0.0, 1.0, 10.0, 60.0))
    values["transactions"] = random.random() < 0.8
    return "etcd-fault", values


def _delay(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"host": random.choice(setup.hosts), "seconds": random.choice((0.5, 3.0, 8.0, 30.0))}
    return "delay", {**values, "lasts": random.choice((30.0, 200.0))}


def _lease(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "end-lease", {"host": random.choice(setup.hosts), "where": random.choice(("now", *PLACES))}


def _compact(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "compact", {"loses": random.choice((None, "all", *setup.hosts))}  # watches of these end with it


def _lasting(what: str, *lasts: float) -> Kind:
    def kind(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
        return what, {"lasts": random.choice(lasts)}

    return kind


def _rate(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "rate", {"rate": random.choice((1.1, 2.0, 5.0)), "lasts": random.choice((30.0, 200.0))}


def _restore(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "restore", {
        "new": random.random() < 0.5,
        "adopted": random.choice((5.0, 60.0)),  # after so many seconds
        "host": random.choice(setup.hosts),  # there
    }


def _step(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "step", {"host": random.choice(setup.hosts), "off": random.uniform(-60.0, 60.0)}


def _simple(what: str) -> Kind:
    return lambda random, setup: (what, {})


# Where a crash, a pause, a partition or the end of a lease may strike: once etcd has carried out a claim or an outcome,
# before the last look at the lease, once the provider has done it, and before brokerd reads the answer.
PLACES = ("claimed", "written", "before-send", "after-send", "after-answer")
WINDOW = "window"  # between the last look and the first byte: the one place where a pause may cost a login
FAULTS = (
    "refuse",
    "lost-before",
    "lost-after",
    "lost-after",
    "late",
    "late-before",
    "never",
    "html",
    "429",
    "500",
    "503",
)
KINDS: tuple[tuple[float, Kind], ...] = (
    (8.0, _get),
    (2.0, _by_hand("refresh")),
    (1.5, _refresh_on_all),
    (0.5, _by_hand("revoke")),
    (0.6, _by_hand("import")),
    (3.0, _fault),
    (2.0, _crash),
    (3.0, _pause),
    (2.0, _cut),
    (3.0, _etcd_fault),
    (1.0, _delay),
    (1.5, _lease),
    (1.0, _compact),
    (0.4, _lasting("full", 5.0, 60.0, 300.0)),
    (0.5, _lasting("no-leader", 2.0, 20.0, 100.0)),
    (0.7, _simple("leader")),
    (0.5, _rate),
    (0.3, _simple("snapshot")),
    (0.3, _restore),
    (0.5, _step),
)
