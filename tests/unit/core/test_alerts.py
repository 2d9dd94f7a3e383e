# What runs a command and when, decided with plain numbers: a storm is few runs, and what is over tells nobody.
from __future__ import annotations

import math

import pytest

from brokerd.core.alerts import ALERTS, BEGINS, ENDS, GAP, LONGEST, NAMES, OnEvent, Waiting, alert, environment
from brokerd.core.events import Event

LOGIN, DOWN, UP = Event.GRANT_NEEDS_LOGIN, Event.PROVIDER_DOWN, Event.PROVIDER_UP
BY_CALLERS = (Event.DENIED, Event.BAD_INPUT, Event.CONNECTION_REFUSED, Event.TOKEN_FETCHED, Event.REQUEST_FAILED)


def waiting(*events: Event, after: float | None = None) -> Waiting:
    return Waiting(OnEvent(events, ("/bin/page",), after))


def happens(to: Waiting, event: Event, now: float, **fields: object) -> None:
    found = alert(event, fields)
    assert found is not None
    to.add(found, now)


def runs(of: Waiting, until: float) -> list[tuple[float, Event, int]]:
    """When it runs, for what, and for how many."""
    found = []
    while (at := of.next_at) <= until:
        batch = of.take(at)
        assert batch is not None
        found.append((at, batch.first.event, batch.number))
    return found


def test_the_first_is_run_at_once_and_a_storm_becomes_few_runs() -> None:
    made, told = waiting(LOGIN), []
    for number in range(10_000):
        now = number / 100
        told += runs(made, now)
        happens(made, LOGIN, now, grant=f"g{number}")
    told += runs(made, 1_000)
    assert [at for at, _, _ in told] == [0.0, GAP, 2 * GAP]
    assert sum(number for _, _, number in told) == 10_000
    assert made.next_at == math.inf


def test_what_waits_is_bounded_whatever_happens() -> None:
    made = waiting(*ALERTS)
    for number in range(10_000):
        for event in (LOGIN, Event.RENEWAL_FAILED, Event.BUG):
            happens(made, event, 0.0, grant=f"g{number}")
    assert len(made._collected) == 3
    batch = made.take(0.0)
    assert batch is not None
    assert (len(batch.names), batch.number) == (NAMES, 10_000)


def test_a_provider_must_be_down_for_a_while() -> None:
    made = waiting(DOWN, UP)
    happens(made, DOWN, 0.0, provider="corp")
    assert runs(made, 599) == []
    happens(made, UP, 599.0, provider="corp")
    assert runs(made, 10_000) == [], "it was over before anybody was told"
    happens(made, DOWN, 10_000.0, provider="corp")
    assert runs(made, 10_600) == [(10_600.0, DOWN, 1)]
    happens(made, UP, 11_000.0, provider="corp")
    assert runs(made, 11_000) == [(11_000.0, UP, 1)]


def test_each_provider_is_down_for_itself() -> None:
    made = waiting(DOWN, after=300.0)
    happens(made, DOWN, 0.0, provider="one")
    happens(made, DOWN, 100.0, provider="other")
    assert runs(made, 1_000) == [(300.0, DOWN, 1), (400.0, DOWN, 1)]


def test_an_end_alone_is_told_to_whom_asked_for_it_alone() -> None:
    made = waiting(UP)
    happens(made, UP, 5.0, provider="corp")
    assert runs(made, 5) == [(5.0, UP, 1)]


def test_what_nobody_asked_for_or_anybody_could_cause_runs_nothing() -> None:
    made = waiting(LOGIN)
    happens(made, Event.BUG, 0.0)
    assert made.next_at == math.inf
    assert [each for each in BY_CALLERS if alert(each, {}) is not None] == []
    assert alert(Event.ON_EVENT_FAILED, {}) is None, "it would run for its own failure, for ever"


@pytest.mark.parametrize("event", [*ENDS, *BEGINS])
def test_what_begins_and_ends_can_be_asked_for(event: Event) -> None:
    assert event in ALERTS


def test_the_facts_are_the_environment_printable_and_cut() -> None:
    made = waiting(LOGIN)
    happens(made, LOGIN, 0.0, grant="app", provider="corp", reason="a\nb\0c\x1b[2J" + "x" * 1_000, secret="no")
    for number in range(3):
        happens(made, LOGIN, 0.0, grant=f"g{number}")
    batch = made.take(0.0)
    assert batch is not None
    found = environment(batch)
    assert found["BROKERD_EVENT"] == "grant_needs_login"
    assert found["BROKERD_MESSAGE"] == "app: a person must log in (and 3 more)"
    assert (found["BROKERD_GRANT"], found["BROKERD_NAMES"], found["BROKERD_MORE"]) == ("app", "app g0 g1 g2", "3")
    assert found["BROKERD_REASON"].startswith("a b c [2Jxx")
    assert len(found["BROKERD_REASON"]) == LONGEST
    assert found["BROKERD_REASON"].endswith("x…"), "it says that more followed"
    assert found["BROKERD_REMEDY"] == "brokerctl login app, or brokerctl import app"
    assert not any("SECRET" in name or not value.isprintable() for name, value in found.items())
    assert environment(batch, test=True)["BROKERD_TEST"] == "1"
