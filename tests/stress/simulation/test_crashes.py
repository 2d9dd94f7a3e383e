# A crash at every await and at every write of one grant's life, one after the other: what the seeds do by chance.
from __future__ import annotations

from itertools import count

import pytest

from tests.stress.simulation.schedule import Event, ProviderSetup, Schedule, Setup
from tests.stress.simulation.simulation import Result, simulate

PROVIDER = ProviderSetup(lifetime=600.0, latency=0.5)
IMPORT = Event(0.5, "import", {"grant": "app"})
SCENES = {
    "the first renewal": (IMPORT,),
    "an interrupted renewal": (
        IMPORT,
        Event(19.0, "fault", {"provider": "one", "kind": "500", "requests": 1}),
        Event(20.0, "refresh", {"grant": "app"}),
    ),
    "a revocation during a renewal": (
        IMPORT,
        Event(20.0, "refresh", {"grant": "app"}),
        Event(20.3, "revoke", {"grant": "app"}),
    ),
    "an import after a revocation": (
        IMPORT,
        Event(10.0, "revoke", {"grant": "app"}),
        Event(20.0, "import", {"grant": "app"}),
    ),
    "a grant that vanishes and returns": (
        IMPORT,
        Event(20.0, "refresh", {"grant": "app"}),
        Event(20.2, "reload", {"kind": "without", "grant": "app", "back": 0.5}),
    ),
    "an orderly stop": (
        IMPORT,
        Event(20.0, "refresh", {"grant": "app"}),
        Event(20.2, "stop", {"down": 1.0, "copied": False}),
    ),
}


def crashed(scene: str, where: str, number: int) -> Result:
    events = SCENES[scene]
    at = events[-1].at  # what comes before the last event is another scene's
    crash = Event(at, "crash", {"where": where, "count": number, "down": 1.0})
    several = (*(each for each in events if each.at < at), crash, *(each for each in events if each.at >= at))
    return simulate(Schedule(1, Setup({"one": PROVIDER, "two": PROVIDER}, ("app",), 0.02), several, 30.0))


@pytest.mark.parametrize("where", ["step", "torn", "after-commit"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_crash_breaks_no_law_wherever_it_comes(scene: str, where: str) -> None:
    for number in count(1):
        result = crashed(scene, where, number)
        assert result.broken is None, f"{where} {number}: {result.broken}"
        if not result.crashes:
            break
    assert number > 1, "it never came to a crash"
