# A fleet for real: brokerds that share their grants through a cluster of three etcds with TLS.
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.real.etcd.cluster import Cluster
from tests.real.etcd.hosts import WITHIN, Hosts, hosts
from tests.scenario.daemon.harness import Brokerd, Serving
from tests.servers import OAuth2, oauth2
from tests.waiting import pauses

pytestmark = pytest.mark.real


@pytest.fixture
async def fleet(etcd_cluster: Cluster, nursery: trio.Nursery) -> AsyncIterator[Hosts]:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    async with hosts(etcd_cluster, provider, nursery) as made:
        yield made


async def test_a_login_on_one_host_serves_all_and_a_rotation_is_seen_everywhere(fleet: Hosts) -> None:
    one, two, _ = await fleet.started(3)
    token = await fleet.log_in(one)
    await fleet.all_serve(token)
    await two.call("refresh", grant="app")
    renewed = await two.get("app")
    assert renewed != token
    await fleet.all_serve(renewed)
    assert fleet.provider.counts.reused == 0


async def host_is_busy(host: Brokerd) -> None:
    """It has an exchange of the grant under way, or waits for another host's."""
    with trio.fail_after(WITHIN):
        for pause in pauses():
            status = await host.call("status", grants=["app"], history=True)
            if status["grants"][0]["next"]["reason"] == "running":
                return
            await trio.sleep(pause)


async def test_hosts_that_want_a_token_at_the_same_time_ask_the_provider_once(fleet: Hosts) -> None:
    started = await fleet.started(3)
    await fleet.all_serve(await fleet.log_in(started[0]))
    asked = fleet.provider.count("refresh")
    found: set[str] = set()

    async def refresh(number: int) -> None:
        await started[number].call("refresh", grant="app")
        found.add(await started[number].get("app"))

    with fleet.provider.hold("refresh") as gate:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(refresh, number)
            await gate.reached()
            for host in started:
                await host_is_busy(host)
            gate.release()
    assert len(found) == 1
    assert fleet.provider.count("refresh") == asked + 1


async def test_a_restart_without_etcd_serves_what_lives_and_sends_nothing(fleet: Hosts) -> None:
    (one,) = await fleet.started(1)
    token = await fleet.log_in(one)
    await one.stop()
    asked = fleet.provider.count("refresh")
    fleet.configure(one, urls=["https://127.0.0.1:1"])
    await one.start()
    assert await one.get("app") == token
    answer = await one.error("refresh", grant="app", wait=1)
    assert "etcd" in answer["message"]
    assert fleet.provider.count("refresh") == asked
    await one.stop()
    fleet.configure(one)
    await one.start()
    await one.call("refresh", grant="app")
    assert await one.get("app") != token
