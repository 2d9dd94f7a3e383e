# Law 15 in a fleet: an etcd that was put back to an older state is not believed, and nothing stored is sent until an
# operator adopts it. What is compacted, or comes late, is no older state.
from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.ports import StoreUnavailable
from tests.scenario.fleet.machines import Fleet, Host, until


async def put_back(machines: Fleet, *, new_cluster: bool) -> tuple[list[Host], str]:
    """Two hosts with a token that etcd has not got any more."""
    one, two = hosts = await machines.started(2)
    await one.log_in()
    await machines.level()
    snapshot = machines.cluster.server.copy(trio.current_time)
    token = await one.renewed()
    await until(lambda: two.served() == token)
    machines.cluster.restore(snapshot, new_cluster=new_cluster)
    return hosts, token


@pytest.mark.parametrize("new_cluster", [True, False])
async def test_nothing_older_is_adopted_or_sent_until_one_host_adopts(
    autojump_clock: MockClock, machines: Fleet, new_cluster: bool
) -> None:
    (one, two), token = await put_back(machines, new_cluster=new_cluster)
    asked = len(machines.provider.asked)
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    for host in (one, two):
        assert host.served() == token
        with pytest.raises(Failure):
            await host.renewed()
    await trio.sleep(60)
    assert len(machines.provider.asked) == asked
    await one.broker.adopt()
    await until(lambda: one.store.adopted and two.store.adopted, 20.0)
    await until(lambda: not one.grant.unstored and not two.grant.unstored)
    assert one.served() == two.served() == token
    renewed = await two.renewed()
    await until(lambda: one.served() == renewed != token)
    assert machines.provider.reused == 0


@pytest.mark.parametrize("new_cluster", [True, False])
async def test_a_claim_at_an_etcd_that_was_just_put_back_sends_nothing(
    autojump_clock: MockClock, machines: Fleet, new_cluster: bool
) -> None:
    """The journal row of an exchange that another host has under way is gone with the rest."""
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    snapshot = machines.cluster.server.copy(trio.current_time)
    await one.begin()
    await machines.level()
    machines.cluster.restore(snapshot, new_cluster=new_cluster)
    with pytest.raises(StoreUnavailable):
        await may_send(two)


async def may_send(host: Host) -> None:
    await host.begin()
    host.store.last_look("app", host.place.fingerprint)


@pytest.mark.parametrize("new_cluster", [True, False])
async def test_a_host_that_was_off_meanwhile_notices_too(
    autojump_clock: MockClock, machines: Fleet, new_cluster: bool
) -> None:
    one = await machines.add().start()
    await machines.settled()
    await one.log_in()
    snapshot = machines.cluster.server.copy(trio.current_time)
    token = await one.renewed()
    await one.stop()
    machines.cluster.restore(snapshot, new_cluster=new_cluster)
    await one.start()
    assert not one.store.adopted
    assert one.served() == token
    asked = len(machines.provider.asked)
    with pytest.raises(Failure):
        await one.broker.get("app", min_ttl=590.0, wait=1.0)
    assert len(machines.provider.asked) == asked
    await one.broker.adopt()
    assert await one.renewed() != token
    assert machines.provider.reused == 0


async def test_a_grant_that_the_snapshot_has_not_got_comes_back(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    snapshot = machines.cluster.server.copy(trio.current_time)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    machines.cluster.restore(snapshot, new_cluster=True)
    await until(lambda: not one.store.adopted and not two.store.adopted)
    assert one.served() == two.served() == token
    await two.broker.adopt()
    await until(lambda: machines.rows("record"))
    await until(lambda: one.store.adopted and not one.grant.unstored and not two.grant.unstored)
    assert await one.renewed() != token
    await until(lambda: two.served() == one.served())
    assert machines.provider.reused == 0


async def test_compaction_while_a_host_is_away_costs_nothing(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two, three = await machines.started(3)
    await one.log_in()
    await machines.level()
    found = set[bool]()
    two.store.noticed = lambda: found.add(two.store.adopted)
    two.cut()
    for _ in range(5):
        token = await one.renewed()
    machines.cluster.server.compact()
    two.heal()
    await until(lambda: two.served() == token == three.served())
    assert two.store.adopted
    assert False not in found
    assert await two.renewed() != token
    assert machines.provider.reused == 0


async def test_a_deletion_in_the_revision_that_etcd_was_compacted_to_is_seen(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await one.begin()
    await machines.level()
    two.cut()
    await one.store.end("app", one.place.fingerprint, unstored=False)
    machines.cluster.server.compact()
    assert two.store.shared.mirror.revision == machines.cluster.server.revision - 1
    two.heal()
    await until(lambda: two.store.shared.mirror.revision == machines.cluster.server.revision)
    await two.begin()


async def test_a_lost_watch_and_a_new_leader_lose_nothing(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    for _ in range(10):
        machines.cluster.change_leader()
        token = await one.renewed()
        machines.cluster.lose_watches("web-1")
        await until(lambda token=token: two.served() == token)  # type: ignore[misc]
    assert one.store.adopted
    assert two.store.adopted


async def test_a_late_watch_is_no_older_etcd(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    machines.cluster.link("web-1").delay = 4.0
    for _ in range(3):
        token = await one.renewed()
        assert await two.renewed() != token
    machines.cluster.link("web-1").delay = 0.0
    await until(lambda: one.served() == two.served())
    assert two.store.adopted
    assert machines.provider.reused == 0
