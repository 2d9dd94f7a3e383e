# The simulation bites: each deliberate bug breaks a law in the seed that stands here. `make mutants` looks for them in
# all seeds from the first; where a changed schedule or law lets a seed here bite no more, it says which one does.
from __future__ import annotations

import pytest

from tests.stress.simulation import mutants
from tests.stress.simulation.mutants import MUTANTS, Mutant, mutated
from tests.stress.simulation.schedule import Event, ProviderSetup, Schedule, Setup, drawn
from tests.stress.simulation.simulation import simulate

BITES = {
    "serve-before-commit": 0,
    "retry-at-once": 5,
    "no-single-flight": 3,
    "variant-becomes-own": 3,
    "forget-what-a-refusal-used-up": 0,
    "redraw-jitter": 0,
    "ignore-generation": 25,
    "drop-journal": 0,
    "journal-after-all": 1,
    "forget-interruption": 4,
    "forget-journal-at-start": 0,
    "serve-expired": 2,
    "ignore-min-ttl": 8,
    "undercut-retry-after": 0,
    "hammer": 0,
    "revoke-in-memory": 39,
    "never-told": 17,
    "lose-unstored": 1,
    "html-is-a-rejection": 4,
    "keep-rejected": 0,
    "resend-refused-password": 2,
    "drop-refresh-token": 12,
    "trust-the-clock": 38,
    "wall-clock-only": 0,
    "not-synced": 1,
    "echo-secrets": 0,
    "no-concurrency-limit": 49,
    "cancel-with-caller": 3,
    "reload-forgets": 13,
    "fields-of-the-last": 0,
    "short-way-ignores-renewals": 0,
}


def _fault(at: float, provider: str, kind: str) -> Event:
    """It befalls whatever is asked there for some seconds."""
    return Event(at, "fault", {"provider": provider, "kind": kind, "lasts": 12.0})


# Where seeds find one too seldom for every run of the tests, the schedule that shows it.
SHOWS = {
    "forget-what-systemd-holds": (
        Event(30.0, "disk", {"kind": "full", "lasts": 200.0}),
        Event(176.0, "crash", {"where": "now", "down": 1.0}),
    ),
    "lock-at-once": (
        Event(99.0, "fault", {"provider": "one", "kind": "late", "requests": 1, "seconds": 40.0}),
        Event(100.0, "refresh", {"grant": "app"}),
        Event(101.0, "lock", {"unlocked": 5.0}),
    ),
    "rotate-nothing": (Event(50.0, "rotate", {"full": False}),),
    "retire-too-soon": (Event(50.0, "rotate", {"full": True}),),
    "restored-is-adopted": (Event(50.0, "backup", {}), Event(100.0, "restore", {"down": 1.0})),
    "audit-without-revocations": (
        Event(50.0, "revoke", {"grant": "svc"}),
        Event(70.0, "stop", {"down": 1.0, "copied": False}),
    ),
    "spend-in-a-copy": (Event(50.0, "stop", {"down": 1.0, "copied": True}),),
    "strict-json": (_fault(35.0, "one", "form"),),
    "drop-what-came": (_fault(35.0, "one", "no-access"),),
    "believe-one-rejection": (_fault(35.0, "one", "stray"),),
    "give-up-slow-answers": (
        Event(35.0, "fault", {"provider": "one", "kind": "late", "lasts": 12.0, "seconds": 90.0}),
    ),
    "show-fields": (_fault(35.0, "one", "500-with-tokens"),),
    "numbers-alone": (_fault(35.0, "one", "expires-text"),),
    "dead-at-once": (Event(35.0, "fault", {"provider": "one", "kind": "expires-zero", "lasts": 60.0}),),
    "doubt-nothing": (_fault(0.0, "two", "detail-401"),),
    "silent-about-clocks": (_fault(35.0, "one", "skewed"),),
    "login-ends-a-revocation": (
        Event(50.0, "login", {"grant": "dev", "approves": 7.0}),
        Event(52.0, "revoke", {"grant": "dev"}),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_breaks_a_law(name: str) -> None:
    schedule = shown(SHOWS[name], audits="audit" in name) if name in SHOWS else drawn(BITES[name])
    if name in SHOWS:
        assert simulate(schedule).broken is None, "it breaks a law without the bug"
    with mutated(name):
        broken = simulate(schedule).broken
    assert broken is not None
    assert "TypeError" not in str(broken), "the bug does not fit the code any more, and breaks nothing but itself"


def shown(events: tuple[Event, ...], *, audits: bool) -> Schedule:
    provider = ProviderSetup(lifetime=60.0, latency=0.5)
    setup = Setup({"one": provider, "two": provider}, ("app", "svc", "user", "dev"), 0.02, holds=True, audits=audits)
    several = sorted((Event(0.5, "import", {"grant": "app"}), *events), key=lambda event: event.at)
    return Schedule(1, setup, tuple(several), 300.0)


def test_a_bug_that_can_be_put_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        MUTANTS, "lost", Mutant("it was renamed", ((mutants.TokenBroker, "went_away", lambda old: old),))
    )
    with pytest.raises(LookupError, match="went_away"), mutated("lost"):
        pass
