# What happens in one simulation: a setup and a list of events, drawn from the seed before anything runs, so that a
# failure can be shrunk by leaving events out. Data only: what an event does is world.py's matter.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Generic, Self, TypeVar

from tests.stress.simulation.answers import ALL as ANSWERS

S = TypeVar("S")
LIFETIMES = (30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0)
REFRESHING, ISSUING, PASSWORD, DEVICE = "refresh_token", "client_credentials", "password", "device_code"
GRANTS = {"app": REFRESHING, "app2": REFRESHING, "svc": ISSUING, "user": PASSWORD, "dev": DEVICE}
PROVIDER_OF = {"app": "one", "app2": "two", "svc": "one", "user": "two", "dev": "one"}
NEEDS_A_PERSON = (REFRESHING, DEVICE)  # grant types whose tokens nobody brings again once they have died


@dataclass(frozen=True)
class ProviderSetup:
    """`grace`: seconds within which a used refresh token is taken again; `latency`: of each way, at most; `limit`: of
    requests in a minute, all that are more get a 429."""

    lifetime: float
    latency: float
    rotates: bool = True
    grace: float = 0.0
    refresh_lifetime: float | None = None
    revocation: bool = True
    concurrency: int = 8
    limit: int | None = None


@dataclass(frozen=True)
class Setup:
    """`holds`: systemd holds what the disk does not take. `audits`: there is an audit log."""

    providers: dict[str, ProviderSetup]
    grants: tuple[str, ...]
    disk_latency: float
    holds: bool = False
    audits: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happens at a time, in seconds of trio's clock."""

    at: float
    what: str
    values: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        values = " ".join(f"{name}={_shown(value)}" for name, value in self.values.items())
        return f"{self.at:9.2f}  {self.what:<8} {values}"


@dataclass(frozen=True)
class Drawn(Generic[S]):
    """What a seed gives."""

    seed: int
    setup: S
    events: tuple[Event, ...]
    horizon: float

    def only(self, kept: list[int]) -> Self:
        """The same with some of its events."""
        return replace(self, events=tuple(self.events[n] for n in kept))


class Schedule(Drawn[Setup]):
    """Of one machine."""


def drawn(seed: int) -> Schedule:
    """The schedule of a seed."""
    random = Random(seed)
    setup = _setup(random)
    longest = max(each.lifetime for each in setup.providers.values())
    horizon = max(300.0, longest * random.uniform(3, 8))
    liar = random.random() < 0.3  # a wall clock that is wrong and claims not to be; nothing can be known over a reboot
    kinds = [kind for kind in KINDS if not (liar and kind[1] is _reboot)]
    weights = [weight * random.choice((0.0, 0.5, 1.0, 1.0, 3.0)) for weight, _ in kinds]
    weights[0] = max(weights[0], 5.0)
    events = [Event(0.5, "import", {"grant": grant}) for grant in setup.grants if GRANTS[grant] == REFRESHING]
    at = 1.0
    for _ in range(random.randint(10, 70)):
        # Half of all events come on the heels of another one: that is where things meet.
        at = at + random.expovariate(0.7) if random.random() < 0.5 else random.uniform(1.0, horizon)
        _, kind = random.choices(kinds, weights)[0]
        what, values = kind(random, setup)
        if what == "step":
            values["noticed"] = not liar
        events.append(Event(round(at, 3), what, values))
    events += _variants(Random(f"{seed} variants"), events)
    setup, more = _more(Random(f"{seed} more"), setup, events, horizon)
    setup = replace(setup, audits=Random(f"{seed} audits").random() < 0.3)
    events += more
    return Schedule(seed, setup, tuple(sorted(events, key=lambda event: event.at)), horizon)


def _variants(random: Random, events: list[Event]) -> list[Event]:
    """Gets of a grant's variants on the heels of others' gets of its own token."""
    gets = [event for event in events if event.what == "get" and random.random() < 0.3]
    return [
        Event(event.at + random.choice((0.0, 0.5, 20.0)), "get", {**event.values, "scope": random.choice(SCOPES)})
        for event in gets
    ]


def _more(random: Random, setup: Setup, events: list[Event], horizon: float) -> tuple[Setup, list[Event]]:
    """What people do with logins, keys and backups. Drawn by itself: the rest of a seed stays what it was."""
    kinds = [kind for kind in KEEPING if random.random() < 0.3]
    kinds += [_answer] * random.choice((0, 0, 1, 3))
    setup = replace(setup, holds=random.random() < 0.5)
    if _login in kinds:
        setup = replace(setup, grants=(*setup.grants, "dev"))
    found = []
    for _ in range(random.randint(1, 12) if kinds else 0):
        near = random.choice(events).at + random.expovariate(0.7)
        at = near if random.random() < 0.6 else random.uniform(1.0, horizon)
        what, values = random.choice(kinds)(random, setup)
        found.append(Event(round(min(at, horizon), 3), what, values))
    return setup, found


def _setup(random: Random) -> Setup:
    lifetime = random.choice(LIFETIMES)

    def provider(grace: float) -> ProviderSetup:
        return ProviderSetup(
            lifetime=lifetime * random.choice((1.0, 1.0, 0.5, 2.0)),
            latency=random.choice((0.05, 0.5, 3.0)),
            rotates=random.random() < 0.85,
            grace=grace,
            refresh_lifetime=random.choice((None, None, 20 * lifetime)),
            revocation=random.random() < 0.85,
            concurrency=random.choice((1, 2, 8)),
            limit=random.choice((None, None, None, 2, 6)),
        )

    more = tuple(grant for grant in ("app2", "svc", "user") if random.random() < 0.4)
    return Setup(
        {"one": provider(0.0), "two": provider(random.choice((0.0, 10.0, 30.0, 90.0)))},
        ("app", *more),
        random.choice((0.0, 0.02, 0.5)),
    )


Kind = Callable[[Random, Setup], tuple[str, dict[str, object]]]


def _get(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"grant": random.choice(setup.grants), "callers": random.choice((1, 1, 1, 5))}
    values["wait"] = random.choice((0.0, 1.0, 10.0, 60.0))
    if random.random() < 0.3:
        values["min_ttl"] = random.choice((0.1, 0.3, 0.5, 0.9))  # of the lifetime
    if random.random() < 0.2:
        values["refused"] = True
    if random.random() < 0.3:
        values["leaves"] = round(random.expovariate(1.0), 3)  # the caller goes away after so many seconds
    return "get", values


def _by_hand(what: str) -> Kind:
    def kind(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
        grants = [each for each in setup.grants if what != "import" or GRANTS[each] == REFRESHING]
        values: dict[str, object] = {"grant": random.choice(grants)}
        if random.random() < 0.3:
            values["leaves"] = round(random.expovariate(1.0), 3)
        return what, values

    return kind


def _fault(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    kind = random.choice(FAULTS)
    values: dict[str, object] = {"provider": PROVIDER_OF[random.choice(setup.grants)], "kind": kind}
    if random.random() < 0.25:
        values["lasts"] = random.choice((5.0, 60.0, 400.0))
    else:
        values["requests"] = random.choice((1, 1, 1, 2, 4))
    if kind in ("late", "late-before"):
        values["seconds"] = random.choice((2.0, 10.0, 40.0, 59.0))
    if kind in ("429", "503"):
        values["seconds"] = random.choice((None, 2.0, 30.0, 120.0, 250.0))
        values["date"] = random.random() < 0.5
    return "fault", values


def _kill(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "kill", {"grant": random.choice(setup.grants)}


def _password(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "password", {"told": random.random() < 0.5, "kill": random.random() < 0.7}


def _disk(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    kind = random.choice(("full", "full", "fails", "fails", "slow"))
    if kind == "fails":
        return "disk", {"kind": kind, "after": random.choice((0, 1, 1, 2, 3)), "writes": random.choice((1, 2, 5))}
    return "disk", {"kind": kind, "lasts": random.choice((2.0, 30.0, 200.0))}


def _crash(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    where = random.choice(("now", *POINTS))
    most = 60 if where == "step" else 4
    values: dict[str, object] = {"where": where, "down": random.choice((0.1, 1.0, 20.0, 300.0))}
    if where != "now":
        values["count"] = random.randint(1, most)
    return "crash", values


def _stop(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "stop", {"down": random.choice((0.1, 1.0, 60.0)), "copied": random.random() < 0.15}


def _adopt(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "adopt", {}


def _suspend(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "suspend", {"seconds": random.choice((5.0, 100.0, 1_000.0, 20_000.0, 200_000.0))}


def _step(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    size = random.choice((0.0, 3.0, 90.0, 3_600.0, 7 * 3_600.0, 86_400.0, 30 * 86_400.0))
    return "step", {"seconds": size * random.choice((-1, 1))}


def _reboot(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    off = random.choice((0.0, 0.0, 0.0, -30 * 86_400.0, -3_600.0, 3_600.0, 7_200.0, 30 * 86_400.0))
    return "reboot", {"down": random.choice((1.0, 30.0, 600.0)), "off": off}


def _reload(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    kind = random.choice(("same", "bad", "scope", "without", "without", "back"))
    values: dict[str, object] = {"kind": kind}
    if kind in ("without", "scope"):
        values["grant"] = random.choice(setup.grants)
    if kind == "without":
        values["back"] = random.choice((0.2, 3.0, 50.0))
    return "reload", values


def _answer(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    kind = random.choice(ANSWERS)
    values: dict[str, object] = {"provider": PROVIDER_OF[random.choice(setup.grants)], "kind": kind}
    if random.random() < 0.2:
        values["lasts"] = random.choice((5.0, 60.0, 400.0))
    else:
        values["requests"] = random.choice((1, 1, 1, 2, 4))
    if kind.startswith("wait"):
        values["seconds"] = random.choice((3.0, 120.0, 400.0))
    if kind == "slow":
        values["kind"], values["seconds"] = "late", random.choice((90.0, 200.0))
    return "fault", values


def _login(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"grant": "dev", "approves": random.choice((1.0, 7.0, 7.0, 40.0, None))}
    if random.random() < 0.2:
        values["leaves"] = round(random.expovariate(0.1), 3)
    return "login", values


def _revoke_login(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    what = random.choice(("revoke", "import", "refresh"))
    grants = [each for each in setup.grants if what != "import" or GRANTS[each] in NEEDS_A_PERSON]
    return what, {"grant": random.choice(grants)}


def _lock(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {"unlocked": random.choice((0.5, 5.0, 60.0, 400.0))}
    if random.random() < 0.3:
        values["leaves"] = round(random.expovariate(1.0), 3)
    return "lock", values


def _rotate(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return "rotate", {"full": random.random() < 0.5}


def _backup(random: Random, setup: Setup) -> tuple[str, dict[str, object]]:
    return random.choice(("backup", "backup", "restore")), {"down": random.choice((1.0, 60.0))}


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


SCOPES = ("read", "read", "write", "admin")  # the last is refused
POINTS = ("before-commit", "torn", "after-commit", "before-send", "after-send", "after-answer", "step")
FAULTS = (
    "refuse",
    "lost-before",  # the request never reached the provider, but bytes of it left
    "lost-after",  # the provider did it, and its answer got lost
    "lost-after",
    "late",  # done at once, answered late
    "late-before",  # done late
    "never",  # done, and no answer until the deadline
    "html",
    "html-403",
    "407",
    "429",
    "500",
    "500-with-tokens",
    "503",
    "truncated",
    "200-error",
    "no-token",
    "invalid_client",
    "expires-text",
    "expires-absent",
    "expires-zero",
    "expires-negative",
    "replayed",  # a proxy sends it twice: the provider sees a reuse, and answers twice
    "replayed-last",  # and the second answer is the one that comes
)
KINDS: tuple[tuple[float, Kind], ...] = (
    (10.0, _get),
    (1.5, _by_hand("refresh")),
    (0.6, _by_hand("revoke")),
    (0.8, _by_hand("import")),
    (5.0, _fault),
    (0.4, _kill),
    (0.4, _password),
    (1.5, _disk),
    (2.0, _crash),
    (0.6, _stop),
    (0.3, _adopt),
    (0.7, _suspend),
    (0.8, _step),
    (0.5, _reboot),
    (1.2, _reload),
)
KEEPING: tuple[Kind, ...] = (_login, _revoke_login, _lock, _rotate, _backup)
