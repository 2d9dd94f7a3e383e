# For each deliberate bug a short schedule that breaks a law with it, and none without it.
from __future__ import annotations

from tests.stress.simulation.fleet.schedule import Schedule
from tests.stress.simulation.fleet.short import at, schedule
from tests.stress.simulation.schedule import Event

APP2, SVC = {"grant": "app2"}, {"grant": "svc"}
WANTED = {**APP2, "wait": 10.0, "refused": True}  # a new token, though the old one lives
LONG = {"lifetime": 500.0, "horizon": 700.0}
LATE = (  # host-0 is stopped for longer than anybody waits for an answer, right before it would send the token
    at(100.0, "pause", host="host-0", where="before-send", seconds=450.0),
    at(100.1, "get", host="host-0", **WANTED),
)
GONE = (  # host-0 has sent the token, and nobody knows what became of that
    at(100.0, "crash", host="host-0", where="after-send", down=500.0, reboots=False),
    at(100.1, "get", host="host-0", **WANTED),
    at(150.0, "get", host="host-1", **WANTED),
)
TWO = {"hosts": (0.0, 0.0)}
SHOWS: dict[str, tuple[tuple[Event, ...], dict[str, object]]] = {
    "no-fencing": (  # host-0 has its failure written while host-1, which has taken over, waits for its own answer
        (
            at(99.0, "fault", provider="two", kind="503", requests=1),
            at(100.0, "pause", host="host-0", where="after-answer", seconds=400.0),
            at(100.0, "refresh", host="host-0", **APP2),
            at(470.0, "pause", host="host-1", where="after-send", seconds=200.0),
        ),
        {**TWO, "lifetime": 120.0, "horizon": 700.0},
    ),
    "no-last-look": (LATE, LONG),
    "lease-without-end": (LATE, LONG),
    "row-on-the-lease": (  # host-1 is away while host-0 has sent the token, and dies, and its lease ends
        (
            at(99.0, "crash", host="host-1", where="now", down=30.0, reboots=False),
            at(100.0, "crash", host="host-0", where="after-send", down=500.0, reboots=False),
            at(100.0, "refresh", host="host-0", **APP2),
            at(140.0, "refresh", host="host-1", **APP2),
        ),
        {**TWO, "lifetime": 600.0},
    ),
    "unknown-is-failed": (
        (
            at(100.0, "etcd-fault", kind="lost-after", host="host-1", requests=1, seconds=0.0, transactions=True),
            at(100.1, "import", host="host-1", **APP2),
        ),
        {},
    ),
    "watch-over-compaction": (
        (
            at(100.0, "cut", host="host-0", where="now", lasts=30.0),
            at(110.0, "revoke", host="host-1", **APP2),
            at(120.0, "compact", loses=None),
            at(170.0, "get", host="host-0", wait=0.0, **APP2),
        ),
        {},
    ),
    "claim-over-a-claim": (
        (
            at(99.0, "fault", provider="two", kind="late", requests=2, seconds=20.0),
            at(100.0, "get", host="host-0", wait=10.0, refused=True, **SVC),
            at(105.0, "get", host="host-1", wait=10.0, refused=True, **SVC),
        ),
        {},
    ),
    "claim-on-any-record": (
        (
            at(100.0, "delay", host="host-0", seconds=8.0, lasts=60.0),
            at(101.0, "get", host="host-1", **WANTED),
            at(103.0, "get", host="host-0", **WANTED),
        ),
        {},
    ),
    "impatient": (
        (
            at(60.0, "refresh", host="host-1", **APP2),
            at(100.0, "pause", host="host-0", where="after-send", seconds=250.0),
            at(100.0, "refresh", host="host-0", **APP2),
        ),
        {"lifetime": 120.0, "horizon": 400.0},
    ),
    "rows-of-others-ignored": (GONE, {"lifetime": 600.0}),
    "moments-as-they-are": (
        (
            at(20.0, "fault", provider="two", kind="refuse", requests=1_000),
            *(at(60.0 + n, "get", host="all", wait=0.0, **APP2) for n in range(40)),
        ),
        {"lifetime": 60.0, "hosts": (0.0, 50.0, -50.0)},
    ),
    "revocations-stay-local": (
        (at(100.0, "revoke", host="host-1", **APP2), at(130.0, "get", host="host-0", wait=0.0, **APP2)),
        {},
    ),
    "restored-is-adopted": (
        (at(10.0, "snapshot"), at(46.0, "restore", new=False, adopted=60.0, host="host-1")),
        {"lifetime": 60.0},
    ),
}


def shows(name: str) -> Schedule:
    """The schedule of that bug."""
    events, about = SHOWS[name]
    return schedule(1, *events, **about)  # type: ignore[arg-type]
