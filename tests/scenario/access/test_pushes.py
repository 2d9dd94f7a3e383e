# Pushes to connections that watch: one after the other, and a fault in one costs its own connection only.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.core.access.policy import Selector
from tests.scenario.access.methods import PORTAL, Program, allows, desk

BY_UID = allows(Selector(uid=PORTAL))


async def test_what_is_unwatched_while_its_push_waits_for_its_turn_is_not_pushed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with desk(tmp_path, BY_UID) as here:
        session = here.session(Program())
        await here.ask(session, "get", grant="app")
        async with here.dispatcher._watches._turns:
            await here.ask(session, "watch", grants=["app"])
            await wait_all_tasks_blocked()
            await here.ask(session, "unwatch", grants=["app"])
        await wait_all_tasks_blocked()
        assert here.pushed == []
        await here.ask(session, "watch", grants=["app"])
        await wait_all_tasks_blocked()
        assert [method for method, _ in here.pushed] == ["token"]


async def test_a_fault_in_a_push_costs_its_own_connection_only(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(*_: object) -> bool:
        raise RuntimeError("a bug")

    async with desk(tmp_path, BY_UID) as here:
        session, other = here.session(Program()), here.session(Program())
        session.notify = fails
        await here.ask(session, "get", grant="app")
        for each in (session, other):
            await here.ask(each, "watch", grants=["app"])
        await trio.testing.wait_all_tasks_blocked()
        assert [method for method, _ in here.pushed] == ["token"]
    assert "ended=push" in "".join(capsys.readouterr())
