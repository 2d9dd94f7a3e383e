# While etcd is away: living tokens are served, also after a restart, nothing stored is sent, and nothing is lost.
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.fleet_changes import FleetChanges
from brokerd.core.errors import Failure
from brokerd.core.secret import Secret
from brokerd.daemon.sharing import stop_serving_offline
from tests.scenario.fleet.machines import Fleet, Host, until
from tests.scenario.laws.world import ISSUING


async def test_a_host_alone_serves_also_after_a_restart_and_sends_nothing(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    await trio.sleep(1)
    asked = len(machines.provider.asked)
    await two.kill()
    two.cut()
    await two.start()
    assert two.served() == token
    assert "etcd" in (two.store.trouble or "")
    with pytest.raises(Failure, match="etcd"):
        await two.renewed()
    assert len(machines.provider.asked) == asked
    renewed = await one.renewed()
    two.heal()
    await until(lambda: two.served() == renewed)
    assert await two.renewed() != renewed
    assert machines.provider.reused == 0


async def test_a_token_that_is_due_waits_until_etcd_is_back(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    machines.cluster.down = True
    asked = len(machines.provider.asked)
    await trio.sleep(590)
    assert one.served() == two.served() == token
    await trio.sleep(20)
    assert one.served() is two.served() is None
    assert len(machines.provider.asked) == asked
    machines.cluster.down = False
    await until(lambda: one.served() == two.served() != token and one.served(), 60.0)
    assert len(machines.provider.asked) == asked + 1


async def test_grants_that_spend_nothing_go_on(autojump_clock: MockClock, machines: Fleet) -> None:
    one = await machines.add(text=ISSUING).start()
    await machines.settled()
    first = (await one.broker.get("app")).value.reveal()
    machines.cluster.down = True
    await trio.sleep(2_000)
    assert one.served() not in (None, first)
    machines.cluster.down = False
    await until(lambda: not one.grant.unstored)
    await machines.level()
    two = await machines.add(text=ISSUING).start()
    assert two.served() == one.served()


@pytest.mark.parametrize("dies", [False, True])
async def test_a_login_while_etcd_is_away_reaches_the_fleet_later(
    autojump_clock: MockClock, machines: Fleet, dies: bool
) -> None:
    one, two = await machines.started(2)
    one.cut()
    await until(lambda: one.store.trouble)
    await one.broker.import_token("app", Secret(machines.provider.new_refresh_token()))
    assert one.grant.unstored
    if dies:
        await one.kill()
        one.cut()
        await one.start()
    await trio.sleep(30)
    one.heal()
    await until(lambda: two.served() is not None)
    await until(lambda: one.served() == two.served() and not one.grant.unstored)
    await until(lambda: one.store.etcd_state().unwritten == 0)
    assert machines.provider.reused == 0


@asynccontextmanager
async def offline(host: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        host.store._offline = 300.0
        nursery.start_soon(stop_serving_offline, host.store, FleetChanges(host.broker, host.providers))
        yield
        nursery.cancel_scope.cancel()


async def test_after_the_configured_time_nothing_is_served_until_etcd_is_back(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    async with offline(two):
        two.cut()
        await trio.sleep(280)
        assert two.served() == token
        await trio.sleep(40)
        assert two.served() is None
        with pytest.raises(Failure, match="another host may have revoked it"):
            await two.broker.get("app", wait=0.0)
        two.heal()
        await until(lambda: two.served() == token, 30.0)
        two.cut()
        await trio.sleep(1)
        await one.broker.revoke("app", wait=0.0)
        await trio.sleep(320)
        assert two.served() is None
        two.heal()
        await trio.sleep(30)
        assert two.served() is None
