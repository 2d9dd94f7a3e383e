# Law 15: an etcd that was restored lacks the data keys that were made after the snapshot, or has them wrapped by the
# key that was replaced since. Hosts that know them bring them back, so nothing that is sealed is lost.
from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.ports import StoreUnavailable
from brokerd.edge.fleet import membership
from tests.scenario.fleet.attacker import KEYS
from tests.scenario.fleet.machines import KEK, OTHER_KEK, Fleet, Host, until

NEVER_WORN = 2**29


async def with_new_data_key(machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Host], str]:
    """Two hosts that seal under a data key that the restored etcd has not got."""
    one, two = hosts = await machines.started(2)
    await one.log_in()
    await machines.level()
    snapshot = machines.cluster.server.copy(trio.current_time)
    await seal_under_another(machines, monkeypatch)
    token = await one.renewed()
    await until(lambda: two.served() == token)
    machines.cluster.restore(snapshot, new_cluster=True)
    return hosts, token


async def seal_under_another(machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on all hosts seal under a new data key."""
    hosts = machines.living()
    monkeypatch.setattr(membership, "WORN", 0)
    await until(lambda: all(each.store.shared.data_keys.newest > 1 for each in hosts), 60.0)
    monkeypatch.setattr(membership, "WORN", NEVER_WORN)
    await machines.level()


async def is_well(machines: Fleet, token: str) -> None:
    """All serve that token, none says that anything is wrong, and what one writes the others can open; also one that
    was never in the fleet."""
    hosts = machines.living()
    await until(lambda: all(each.store.adopted for each in hosts), 60.0)
    await until(lambda: not any(each.grant.unstored for each in hosts), 60.0)
    assert {each.served() for each in hosts} == {token}
    for host in hosts:
        renewed = await host.renewed()
        await until(lambda renewed=renewed: all(each.served() == renewed for each in hosts), 60.0)  # type: ignore[misc]
        assert [each.store.trouble for each in hosts] == [None] * len(hosts)
    new = machines.add()
    new.kek = hosts[0].kek
    await new.start()
    await until(lambda: new.served() == hosts[0].served(), 60.0)
    await new.renewed()
    await until(lambda: new.served() == hosts[0].served(), 60.0)
    assert machines.provider.reused == 0


async def test_a_data_key_made_after_the_snapshot_is_there_again(
    autojump_clock: MockClock, machines: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, two), token = await with_new_data_key(machines, monkeypatch)
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    await one.broker.adopt()
    await is_well(machines, token)


async def test_whichever_host_adopts(
    autojump_clock: MockClock, machines: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was started after the restore could not read the new data key anywhere."""
    (one, two), token = await with_new_data_key(machines, monkeypatch)
    await two.restart()
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    assert one.served() == two.served() == token
    await two.broker.adopt()
    await is_well(machines, token)


async def test_when_all_hosts_were_started_again_meanwhile(
    autojump_clock: MockClock, machines: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, two), token = await with_new_data_key(machines, monkeypatch)
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    for host in (one, two):
        await host.restart()
        assert host.served() == token
    await two.broker.adopt()
    await is_well(machines, token)


async def test_data_keys_that_the_replaced_key_wraps_are_wrapped_again(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = hosts = await machines.started(2)
    await one.log_in()
    await machines.level()
    snapshot = machines.cluster.server.copy(trio.current_time)
    for host in hosts:
        host.store.membership.more_keys = (KEK, OTHER_KEK)
    for host in hosts:
        await host.store.rewrap(OTHER_KEK)
        host.kek = OTHER_KEK
    await machines.level()
    for host in hosts:
        await host.restart()  # without previous_key
    await machines.settled()
    token = await one.renewed()
    await until(lambda: two.served() == token)
    machines.cluster.restore(snapshot, new_cluster=True)
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    await two.restart()
    assert two.served() == token
    await two.broker.adopt()
    await is_well(machines, token)


async def test_a_fleet_that_a_new_host_made_in_an_empty_etcd_gives_way(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    """It has a data key of the same number."""
    empty = machines.cluster.server.copy(trio.current_time)
    one, two = await machines.started(2)
    await one.log_in()
    token = await one.renewed()
    await until(lambda: two.served() == token)
    machines.cluster.restore(empty, new_cluster=True)
    three = await machines.add().start()
    await until(lambda: not one.store.adopted and not two.store.adopted, 20.0)
    await one.broker.adopt()
    await until(lambda: two.store.adopted, 20.0)
    assert not three.store.adopted
    await three.restart()
    await is_well(machines, token)


async def test_a_data_key_that_was_deleted_is_missed_and_a_host_that_knows_it_brings_it_back(
    autojump_clock: MockClock, machines: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that does not know it neither overwrites what may be newer than what it has, nor advises to delete it."""
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    await two.kill()
    await seal_under_another(machines, monkeypatch)
    newest = one.store.shared.data_keys.newest
    token = await one.renewed()
    await one.stop()
    server = machines.cluster.server
    server.transact({}, dict.fromkeys(KEYS.data_key(number) for number in range(2, newest + 1)))
    await two.start()
    with pytest.raises(StoreUnavailable, match=r"a data key that this host does not know, and may be newer .*; start"):
        await two.begin()
    asked = len(machines.provider.asked)
    await trio.sleep(100)
    assert len(machines.provider.asked) == asked
    await one.start()
    await until(lambda: two.served() == one.served() == token, 60.0)
    await is_well(machines, token)
