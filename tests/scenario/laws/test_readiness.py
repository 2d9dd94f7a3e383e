# What brokerd tells systemd, on virtual time: ready when the grants are ready, one status line, and watchdog messages
# that stop when a loop stops. tests/real/systemd shows that systemd receives them.
from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.renewal_schedule import STUCK
from brokerd.core.exchange.steps import ANSWER_TIMEOUT
from brokerd.daemon.readiness import LONGER, READY_WITHIN, Readiness, summary
from tests.scenario.laws.world import ISSUING, REFRESHING, ModelProvider, TestClock, World, world

WATCHED = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}


class Manager:
    """The other end of the notifications."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, tuple[str, ...]]] = []

    def __call__(self, *states: str) -> None:
        self.heard.append((trio.current_time(), states))

    def times(self, state: str) -> list[float]:
        return [at for at, states in self.heard if state in states]

    @property
    def status(self) -> str:
        return [each for _, states in self.heard for each in states if each.startswith("STATUS=")][-1]


@asynccontextmanager
async def served(made: World, environ: dict[str, str] | None = None) -> AsyncIterator[tuple[Readiness, Manager]]:
    manager = Manager()
    service = Readiness(made.broker, manager, environ or {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        yield service, manager
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        ({}, "0 grants fresh"),
        ({"fresh": ["a"]}, "1 grant fresh"),
        ({"fresh": ["a"] * 41, "needs login": ["reports"]}, "41 grants fresh, 1 needs login: reports"),
        ({"misconfigured": ["d", "c", "b", "a"]}, "0 grants fresh, 4 misconfigured: a, b, c, …"),
    ],
)
def test_one_line_says_how_the_grants_are(kinds: dict[str, list[str]], line: str) -> None:
    assert summary(kinds) == line


async def test_it_is_ready_when_the_grants_are(tmp_path: Path, autojump_clock: MockClock) -> None:
    clock = TestClock()
    provider = ModelProvider(clock, takes=5.0)
    async with world(tmp_path, ISSUING, provider=provider) as made, served(made) as (_, manager):
        await trio.sleep(30)
        assert [round(at) for at in manager.times("READY=1")] == [5]
        assert manager.status == "STATUS=1 grant fresh"


async def test_it_is_not_ready_while_exchanges_are_under_way_and_others_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    clock = TestClock()
    slow, quick = ModelProvider(clock, takes=5.0), ModelProvider(clock, takes=1.0)
    quickly = ISSUING.replace("idp", "quick").replace("grants.app", "grants.quick")
    both = world(tmp_path, ISSUING + quickly, provider=slow, others={"quick": quick})
    async with both as made, served(made) as (_, manager):
        await trio.sleep(30)
        assert [round(at) for at in manager.times("READY=1")] == [5]
        assert manager.status == "STATUS=2 grants fresh"


async def test_a_provider_that_is_slow_delays_it_for_a_while_only(tmp_path: Path, autojump_clock: MockClock) -> None:
    clock = TestClock()
    provider = ModelProvider(clock, takes=50.0)
    async with world(tmp_path, ISSUING, provider=provider) as made, served(made) as (_, manager):
        await trio.sleep(40)
        assert [round(at) for at in manager.times("READY=1")] == [READY_WITHIN]
        assert manager.status == "STATUS=0 grants fresh, 1 without a token: app"
        await trio.sleep(60)
        assert manager.status == "STATUS=1 grant fresh"


async def test_a_grant_that_nothing_but_a_person_can_help_delays_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path, REFRESHING) as made, served(made) as (_, manager):
        await trio.sleep(5)
        assert [round(at) for at in manager.times("READY=1")] == [0]
        assert manager.status == "STATUS=0 grants fresh, 1 needs login: app"


async def test_beats_go_on_while_the_loops_do(tmp_path: Path, autojump_clock: MockClock) -> None:
    clock = TestClock()
    provider = ModelProvider(clock, takes=50.0)  # slow: nobody's loop is stuck by that
    async with world(tmp_path, ISSUING, provider=provider) as made, served(made, WATCHED) as (_, manager):
        await trio.sleep(600)
        beats = manager.times("WATCHDOG=1")
        assert max(after - before for before, after in itertools.pairwise(beats)) <= 10.01


async def test_a_refresher_that_stopped_looking_is_a_missed_beat(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made, served(made, WATCHED) as (_, manager):
        await trio.sleep(600)
        assert max(manager.times("WATCHDOG=1")) < STUCK + 0.01


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {**WATCHED, "WATCHDOG_PID": "1"}]
)
async def test_nobody_who_asks_for_no_beats_gets_any(
    tmp_path: Path, autojump_clock: MockClock, environ: dict[str, str]
) -> None:
    async with world(tmp_path, ISSUING) as made, served(made, environ) as (_, manager):
        await trio.sleep(100)
        assert manager.times("WATCHDOG=1") == []


async def test_a_stop_asks_for_more_time_while_an_exchange_is_under_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    clock = TestClock()
    provider = ModelProvider(clock, takes=5.0)
    async with world(tmp_path, ISSUING, provider=provider) as made, served(made) as (service, manager):
        await trio.sleep(1)
        service.stopping()
        assert f"EXTEND_TIMEOUT_USEC={int((ANSWER_TIMEOUT + LONGER) * 1e6)}" in manager.heard[-1][1]
        await trio.sleep(10)
        service.stopping()
        assert manager.heard[-1][1] == ("STOPPING=1", "STATUS=stopping")
