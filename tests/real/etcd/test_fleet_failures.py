# A fleet for real whose hosts and etcds are killed: nothing is sent twice, and nothing is lost.
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests.real.etcd.cluster import SIZE, Cluster, running
from tests.real.etcd.hosts import WITHIN, Hosts, hosts
from tests.scenario.daemon.harness import Brokerd, Serving
from tests.servers import OAuth2, oauth2

pytestmark = pytest.mark.real
GRACE = 60.0


@pytest.fixture
async def fleet(etcd_cluster: Cluster, nursery: trio.Nursery) -> AsyncIterator[Hosts]:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600, reuse_grace=GRACE)))
    async with hosts(etcd_cluster, provider, nursery) as made:
        yield made
    await etcd_cluster.repair()


async def refreshed(host: Brokerd) -> None:
    await host.call("refresh", grant="app", wait=WITHIN)


async def test_the_token_of_a_host_that_was_killed_is_sent_by_that_host_alone(fleet: Hosts) -> None:
    fleet.provider_settings = {"reuse_grace": "60s"}
    one, two = await fleet.started(2)
    token = await fleet.log_in(one)
    await fleet.all_serve(token)
    asked = fleet.provider.count("refresh")
    with fleet.provider.hold("refresh") as gate:
        async with one.caller() as caller:
            await caller.send("refresh", grant="app")
            await gate.reached()
        await one.kill()
        gate.release()
    await two.error("refresh", grant="app", wait=1)
    assert fleet.provider.count("refresh") == asked + 1
    await one.start()
    await refreshed(one)
    assert await one.get("app") != token
    await fleet.all_serve(await one.get("app"))
    assert fleet.provider.count("refresh") == asked + 2


async def test_renewals_go_on_while_the_leader_of_etcd_is_killed(fleet: Hosts) -> None:
    started = await fleet.started(3)
    token = await fleet.log_in(started[0])
    await fleet.all_serve(token)
    for host in started[1:]:
        leader = await fleet.cluster.leader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refreshed, host)
            fleet.cluster.kill(leader)
        await fleet.cluster.revive(leader)
        assert await host.get("app") != token
        token = await host.get("app")
        await fleet.all_serve(token)
    assert fleet.provider.counts.reused == 0


async def test_a_rotation_that_etcd_could_not_be_told_outlives_a_kill(fleet: Hosts) -> None:
    one, two = await fleet.started(2)
    token = await fleet.log_in(one)
    await fleet.all_serve(token)
    with fleet.provider.hold("refresh") as gate:
        async with one.caller() as caller:
            await caller.send("refresh", grant="app")
            await gate.reached()
            for number in range(SIZE):
                fleet.cluster.kill(number)
            gate.release()
            await one.until("app", lambda found: bool(found["unstored"]), WITHIN)
    renewed = await one.get("app")
    assert renewed != token
    await one.restart()
    assert await one.get("app") == renewed
    assert await two.get("app") == token
    await fleet.cluster.repair()
    await fleet.all_serve(renewed)
    await refreshed(two)
    await fleet.all_serve(await two.get("app"))
    assert fleet.provider.counts.reused == 0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("guarded"), mutual=True) as cluster:
        trio.run(cluster.require_users, "brokerd", "hunter2", b"/brokerd/")
        yield cluster


async def test_a_fleet_with_client_certificates_and_users(
    guarded: Cluster, nursery: trio.Nursery, tmp_path: Path
) -> None:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    password.chmod(0o600)
    about = {"user": "brokerd", "password": {"file": password}}
    about |= {"cert_file": str(guarded.cert_file), "key_file": str(guarded.key_file)}
    async with hosts(guarded, provider, nursery) as made:
        one, two = (made.add(**about) for _ in range(2))
        for host in (one, two):
            await host.start()
        await made.all_serve(await made.log_in(one))
        await refreshed(two)
        await made.all_serve(await two.get("app"))
        for host in (one, two):
            assert "hunter2" not in host.log
