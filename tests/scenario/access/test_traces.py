# Pushes to connections that follow a renewal: they end with the right to renew, and who does not read delays nobody.
from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.core.access.policy import Action, Selector
from brokerd.server.methods.trace import MOST
from tests.scenario.access.methods import PORTAL, Program, allows, desk

BOTH = allows(Selector(uid=PORTAL), actions=(Action.GET, Action.REFRESH))
GET = allows(Selector(uid=PORTAL))


async def test_a_rule_that_goes_ends_the_trace(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with desk(tmp_path, BOTH) as here:
        session = here.session(Program())
        await here.ask(session, "trace", grant="app", only_wait=True)
        await wait_all_tasks_blocked()
        here.dispatcher.rights.policy = GET
        await here.broker.refresh("app")
        await wait_all_tasks_blocked()
        (end,) = [params for _, params in here.pushed]
        assert (end["step"], end["error"]["code"]) == ("end", "unknown_grant")  # type: ignore[index]
        assert session.trace is None
        assert not here.broker.events.traces.is_followed("app")


async def test_a_reader_who_does_not_read_delays_no_renewal_and_costs_little(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def never(*_: object) -> bool:
        await trio.sleep_forever()
        return False

    async with desk(tmp_path, BOTH) as here:
        session = here.session(Program())
        session.notify = never
        await here.ask(session, "trace", grant="app", only_wait=True)
        trace: Any = session.trace
        for _ in range(MOST // 4):
            await here.broker.refresh("app")
            await trio.sleep(600)
        assert len(here.provider.asked) == MOST // 4
        assert len(trace.steps) <= MOST
        assert trace.lost > 0
        here.dispatcher.end(session)
        await wait_all_tasks_blocked()
        assert not here.broker.events.traces.is_followed("app")


async def test_who_hangs_up_ends_no_exchange_and_one_connection_follows_one_renewal(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with desk(tmp_path, BOTH) as here:
        session = here.session(Program())
        await here.ask(session, "trace", grant="app")
        assert await here.ask(session, "trace", grant="app") == "limit"
        here.dispatcher.end(session)
        await wait_all_tasks_blocked()
        assert (await here.broker.get("app")).value.reveal()


async def test_if_nobody_follows_no_step_is_made(autojump_clock: MockClock, tmp_path: Path) -> None:
    def make() -> Any:
        raise AssertionError("nobody follows")

    async with desk(tmp_path, BOTH) as here:
        here.broker.events.traces.note("app", make)
        await here.broker.get("app")
