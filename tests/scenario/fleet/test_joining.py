# A host comes into a fleet, leaves it, is locked, or has the wrong key or release; its own store stays with it.
from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from brokerd.core.fleet.etcd import Put
from brokerd.core.fleet.layout import MetaValue
from brokerd.core.grant.record import Record
from brokerd.core.ports import StoreError, StoreUnavailable, WrongKey
from brokerd.edge.fleet import membership
from brokerd.edge.store.store import SqliteStore
from tests.scenario.fleet.machines import KEK, OTHER_KEK, Entropy, Fleet, Host, inline, until
from tests.unit.core.values import access, refresh

PRINT = "f" * 32


async def with_records(host: Host, names: list[str]) -> None:
    """It has been alone so far."""
    with contextlib.closing(SqliteStore(host.folder, KEK, host.machine, Entropy(), inline)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            for name in names:
                made = Record(
                    name, generation=3, access_token=access(value=f"{host.name} {name}"), refresh_token=refresh()
                )
                await store.write(made, PRINT, None, concludes=False)
            nursery.cancel_scope.cancel()


def stored(folder: Path) -> dict[str, str]:
    """What a host alone has in its store: the access tokens."""
    with contextlib.closing(SqliteStore(folder, KEK, folder.name, Entropy(), inline)) as store:
        rows = [each.record for each in store.all()]
    return {row.name: row.access_token.value.reveal() for row in rows if row is not None and row.access_token}


@pytest.mark.parametrize("dies", [False, True])
async def test_a_store_with_many_grants_comes_whole_into_a_slow_etcd(
    autojump_clock: MockClock, machines: Fleet, dies: bool
) -> None:
    one = machines.add()
    names = [f"grant-{number}" for number in range(60)]
    await with_records(one, names)
    machines.cluster.latency = 0.5
    await one.start()
    assert 0 < len(machines.rows("record")) < len(names)  # a start waits for so long only
    if dies:
        await one.restart()
    await until(lambda: len(machines.rows("record")) == len(names))
    machines.cluster.latency = 0.01
    two = await machines.add().start()
    assert {row.grant for row in two.store.all()} == set(names)


async def test_what_the_fleet_has_counts_and_what_it_lacks_is_brought(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = machines.add(), machines.add()
    await with_records(one, ["both", "first"])
    await with_records(two, ["both", "second"])
    await one.start()
    await two.start()
    await machines.level()
    found = {row.grant: row.record for row in two.store.all()}
    assert {name: record and record.access_token.value.reveal() for name, record in found.items()} == {  # type: ignore[union-attr]
        "both": "web-0 both",
        "first": "web-0 first",
        "second": "web-1 second",
    }


async def test_a_host_that_leaves_the_fleet_has_the_newest_tokens(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    token = await two.renewed()
    await until(lambda: one.served() == token)
    await trio.sleep(1)
    await one.stop()
    assert stored(one.folder) == {"app": token}


async def test_the_wrong_key_does_not_start_and_changes_nothing(autojump_clock: MockClock, machines: Fleet) -> None:
    one = await machines.add().start()
    await one.log_in()
    before = dict(machines.cluster.server.pairs)
    two = machines.add()
    two.kek = OTHER_KEK
    with pytest.raises(WrongKey, match=r"same .daemon. key"):
        await start(two)
    await machines.level()
    assert {key: pair for key, pair in machines.cluster.server.pairs.items() if b"member" not in key} == {
        key: pair for key, pair in before.items() if b"member" not in key
    }


async def start(host: Host) -> None:
    """Raises the one error of a start."""
    try:
        await host.start()
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


async def newer(machines: Fleet) -> None:
    """A later release, which this one cannot work with, has taken the fleet over."""
    etcd = machines.cluster.client("later")
    found = (await etcd.read([b"/brokerd/prod/meta"])).pairs[b"/brokerd/prod/meta"]
    meta = MetaValue.decoded(found.value)
    assert meta is not None
    meta = msgspec.structs.replace(meta, schema=9, usable_by=9, release="9.0")
    meta = machines.living()[0].store.shared.data_keys.prove(b"/brokerd/prod/meta", meta)
    await etcd.transact({}, {b"/brokerd/prod/meta": Put(meta.encoded())})


async def test_a_fleet_of_a_later_release_is_left_alone(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await machines.level()
    await two.stop()
    await newer(machines)
    await machines.level()
    await until(lambda: "9.0" in (one.store.trouble or ""))
    before = {key: pair for key, pair in machines.cluster.server.pairs.items() if b"member" not in key}
    asked = len(machines.provider.asked)
    with pytest.raises(StoreUnavailable):
        await one.begin()
    mine = one.grant.record
    with pytest.raises(StoreUnavailable):
        await one.store.write(replace(mine, failures=3), one.place.fingerprint, mine.generation, concludes=False)
    await trio.sleep(60)
    assert one.served() == token
    assert len(machines.provider.asked) == asked
    after = {key: pair for key, pair in machines.cluster.server.pairs.items() if b"member" not in key}
    assert after == before
    with pytest.raises(StoreError, match=r"9\.0"):
        await start(two)


async def test_a_locked_host_joins_when_it_is_unlocked(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await machines.level()
    await two.store.lock()
    assert two.store.is_locked
    with pytest.raises(StoreUnavailable):
        await two.begin()
    renewed = await one.renewed()
    assert renewed != token
    with pytest.raises(WrongKey):
        await two.store.unlock(OTHER_KEK)
    assert two.store.is_locked
    await two.store.unlock(KEK)
    await until(lambda: two.served() == renewed)
    assert await two.renewed() != renewed


async def test_a_host_that_starts_locked_joins_when_it_is_unlocked(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    await two.kill()
    two.kek = None
    await two.start()
    renewed = await one.renewed()
    await machines.level()
    await two.store.unlock(KEK)
    two.configure()
    assert two.served() == renewed
    assert await two.renewed() != renewed


async def test_the_key_is_changed_on_one_host_after_the_other(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    two.store.membership.more_keys = (OTHER_KEK,)
    await one.store.rewrap(OTHER_KEK)
    await machines.level()
    token = await two.renewed()  # its own key is the old one
    await until(lambda: one.served() == token)
    token = await one.renewed()
    await until(lambda: two.served() == token)
    await two.store.rewrap(OTHER_KEK)
    for host in (one, two):
        host.kek = OTHER_KEK
        await host.restart()
        assert host.served() == token
    assert await two.renewed() != token


async def test_a_host_that_does_not_know_the_new_key_serves_what_it_has_and_says_so(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    await one.store.rewrap(OTHER_KEK)
    assert await one.renewed() != token
    await until(lambda: "same [daemon] key" in (two.store.trouble or ""))
    assert two.served() == token
    with pytest.raises(StoreUnavailable):
        await two.begin()
    await two.store.rewrap(OTHER_KEK)
    await until(lambda: two.served() == one.served())
    await until(lambda: two.store.trouble is None)


async def test_a_host_with_the_wrong_key_says_so_when_etcd_comes_back(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one = await machines.add().start()
    await one.log_in()
    two = machines.add()
    two.kek = OTHER_KEK
    two.cut()
    await two.start()
    two.heal()
    await until(lambda: "same [daemon] key" in (two.store.trouble or ""))
    await trio.sleep(30)
    assert "same [daemon] key" in (two.store.trouble or "")


async def test_a_data_key_that_may_have_sealed_often_enough_seals_no_more(
    autojump_clock: MockClock, machines: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 15: what was sealed before is opened by all hosts, and by one that comes later."""
    monkeypatch.setattr(membership, "WORN", 30)
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    assert one.store.shared.data_keys.newest == 1
    for _ in range(30):
        await one.grant.change(one.store, lambda record: record)
    await until(lambda: one.store.shared.data_keys.newest == two.store.shared.data_keys.newest == 2, 30.0)
    renewed = await two.renewed()
    await until(lambda: one.served() == renewed)
    three = await machines.add().start()
    await until(lambda: three.served() == renewed)
