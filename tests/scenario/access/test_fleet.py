# Who is told of the fleet: those who may see the status of every grant, at the moment of the answer. And what status,
# readiness and metrics say of etcd, each at the real methods.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from brokerd.core.access.policy import Action, Policy, Rule, Selector
from tests.fleet_of_two import AWAY, SINCE, WELL, FleetOfTwo
from tests.scenario.access.methods import PORTAL, Desk, Program, allows, desk

EVERY = ("*",)


@pytest.mark.parametrize(
    ("grants", "actions", "is_told"),
    [
        (EVERY, (Action.STATUS,), True),
        (EVERY, (Action.ADMIN,), True),
        (EVERY, (Action.GET,), True),
        (("app",), (Action.STATUS,), False),
        (("?",), (Action.STATUS,), False),
        (("[*]",), (Action.STATUS,), False),
        (("app", "a*"), (Action.STATUS, Action.ADMIN), False),
    ],
)
async def test_only_who_may_see_every_grant_is_told_of_the_fleet(
    autojump_clock: MockClock, tmp_path: Path, grants: tuple[str, ...], actions: tuple[Action, ...], is_told: bool
) -> None:
    policy = allows(Selector(uid=PORTAL), grants=grants, actions=actions)
    async with desk(tmp_path, policy) as here:
        here.broker.fleet = FleetOfTwo()
        found = await here.ask(here.session(Program()), "fleet")
        assert (found != "denied") == is_told, found
        assert is_told == ("etcd" in found)


async def test_the_right_is_looked_at_again_when_the_answer_is_there(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Slow(FleetOfTwo):
        async def fleet(self) -> object:  # type: ignore[override]
            here.dispatcher.rights.policy = Policy((), owner=990)
            return await super().fleet()

    async with desk(tmp_path, Policy((Rule(EVERY, (Selector(uid=PORTAL),), frozenset({Action.STATUS})),), 990)) as here:
        here.broker.fleet = Slow()  # type: ignore[assignment]
        assert await here.ask(here.session(Program()), "fleet") == "denied"


async def test_outside_of_a_fleet_there_is_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with desk(tmp_path, Policy((), owner=990)) as here:
        session = here.session(Program(uid=990))
        found = await here.ask(session, "fleet")
        assert (found["fleet"], found["etcd"], found["members"]) == (None, None, ())
        status = await here.ask(session, "status")
        assert (status["daemon"]["fleet"], status["grants"][0]["renewer"]) == (None, None)


async def _daemon(here: Desk) -> dict[str, object]:
    found = await here.ask(here.session(Program(uid=990)), "status")
    return dict(found["daemon"])


async def test_status_says_who_renews_and_how_etcd_is(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with desk(tmp_path, Policy((), owner=990)) as here:
        here.broker.fleet = fleet = FleetOfTwo()
        found = await here.ask(here.session(Program(uid=990)), "status")
        assert found["grants"][0]["renewer"] == "web-2"
        assert found["daemon"]["store"] is None
        about = found["daemon"]["fleet"]
        assert (about["fleet"], about["host"], about["reachable"], about["since"]) == ("prod", "web-1", True, SINCE)
        fleet.etcd = replace(WELL, adopted=False)
        assert str((await _daemon(here))["store"]).endswith("no stored token is sent; brokerctl adopt")
        assert "snapshot" in str((await _daemon(here))["store"])


async def test_it_is_ready_without_etcd_until_offline_has_passed(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with desk(tmp_path, Policy((), owner=990)) as here:
        here.broker.fleet = fleet = FleetOfTwo()
        session, now = here.session(Program(uid=990)), here.broker.now().wall

        async def checks() -> dict[str, str | None]:
            found = await here.ask(session, "ready")
            return {each["name"]: each["reason"] for each in found["checks"] if not each["ok"]}

        fleet.etcd = replace(AWAY, serves_until=now + 5)
        assert "fleet" not in await checks()
        fleet.etcd = replace(AWAY, serves_until=now - 5)
        assert "longer than [store] offline allows: https://10.0.0.1" in str((await checks())["fleet"])
        fleet.etcd = replace(WELL, serves_until=now - 5)
        assert "fleet" not in await checks()
        fleet.etcd = replace(WELL, adopted=False)
        assert "snapshot" in str((await checks())["store-adopted"])
