# The model of etcd does what every Etcd does, as tests/real/etcd has it of real servers, and what a schedule wants.
from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.fleet.etcd import (
    ABSENT,
    Changes,
    Compacted,
    EtcdAway,
    EtcdFull,
    EtcdUnanswered,
    LeaseGone,
    Put,
)
from tests.real.etcd.conformance import CHECKS, Check, Subject
from tests.stress.simulation.fleet.model_etcd import TIMEOUT, Fault, ModelCluster, ModelEtcd

A, B = b"/brokerd/prod/a", b"/brokerd/prod/b"
ALL = b"/brokerd/prod/"


@pytest.fixture
async def cluster() -> AsyncIterator[ModelCluster]:
    async with trio.open_nursery() as nursery:
        yield ModelCluster(nursery, Random(1))
        nursery.cancel_scope.cancel()


@pytest.fixture
def one(cluster: ModelCluster) -> ModelEtcd:
    return cluster.client("one")


@pytest.fixture
def two(cluster: ModelCluster) -> ModelEtcd:
    return cluster.client("two")


async def held(etcd: ModelEtcd, key: bytes) -> bytes | None:
    found = (await etcd.read([key])).pairs.get(key)
    return found and found.value


@asynccontextmanager
async def heard(etcd: ModelEtcd, since: int) -> AsyncIterator[list[Changes]]:
    """All that a watch hears."""
    found = list[Changes]()

    async def listen() -> None:
        async with etcd.watch(ALL, since) as changes:
            async for each in changes:
                found.append(each)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield found
        nursery.cancel_scope.cancel()


async def test_of_two_that_expect_the_same_one_is_done(
    autojump_clock: MockClock, one: ModelEtcd, two: ModelEtcd
) -> None:
    ended = []

    async def take(etcd: ModelEtcd, value: bytes) -> None:
        ended.append((await etcd.transact({A: ABSENT}, {A: Put(value), B: Put(value)}), value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, one, b"1")
        nursery.start_soon(take, two, b"2")
    (done, value), (failed, _) = sorted(ended, key=lambda each: not each[0].done)
    assert (done.done, failed.done) == (True, False)
    assert failed.found[A].value == value
    both = await one.read([A, B])
    assert {each.modified for each in both.pairs.values()} == {done.revision} == {failed.revision}


async def test_a_lease_takes_its_keys_along_in_one_revision(
    autojump_clock: MockClock, one: ModelEtcd, two: ModelEtcd
) -> None:
    lease, seconds = await one.grant_lease(15)
    done = await one.transact({}, {A: Put(b"1", lease), B: Put(b"2", lease)})
    async with heard(two, done.revision + 1) as changes:
        for _ in range(4):
            await trio.sleep(seconds - 5)
            await one.keep_alive(lease)
        assert await held(two, A) == b"1"
        await trio.sleep(seconds + 1)
        told = [each for each in changes if each.changes]
        assert [each.changes for each in told] == [((A, None), (B, None))]
    with pytest.raises(LeaseGone):
        await one.keep_alive(lease)
    with pytest.raises(LeaseGone):
        await one.transact({}, {A: Put(b"1", lease)})


async def test_the_servers_time_may_go_faster(autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd) -> None:
    cluster.server.rate = 3.0
    lease, seconds = await one.grant_lease(15)
    await trio.sleep(seconds / 2)
    with pytest.raises(LeaseGone):
        await one.keep_alive(lease)


@pytest.mark.parametrize(
    ("kind", "now", "later"), [("lost-before", None, None), ("lost-after", b"1", b"1"), ("later", None, b"1")]
)
async def test_a_transaction_without_an_answer_is_done_or_not_or_done_later(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd, kind: str, now: bytes | None, later: bytes | None
) -> None:
    cluster.faults.append(Fault(kind, "one", seconds=20.0))
    with pytest.raises(EtcdUnanswered):
        await one.transact({}, {A: Put(b"1")})
    assert await held(one, A) == now
    await trio.sleep(30)
    assert await held(one, A) == later


async def test_what_left_is_carried_out_though_its_client_is_gone(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    cluster.latency = 1.0
    with trio.move_on_after(0.001):
        await one.transact({}, {A: Put(b"1")})
    await trio.sleep(5)
    assert await held(one, A) == b"1"


async def test_a_partition_keeps_one_host_away_and_ends_its_watch(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd, two: ModelEtcd
) -> None:
    lost = trio.Event()

    async def listen() -> None:
        async with one.watch(ALL, 1) as changes:
            with pytest.raises(EtcdAway):
                await anext(changes)
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(1)
        cluster.cut("one")
        with pytest.raises(EtcdAway):
            await one.transact({}, {A: Put(b"1")})
        await lost.wait()
    assert (await two.transact({A: ABSENT}, {A: Put(b"2")})).done
    cluster.heal("one")
    assert await held(one, A) == b"2"


async def test_a_partition_on_the_way_back_leaves_it_unknown(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    cluster.carried_out = lambda *_: cluster.cut("one")
    begun = trio.current_time()
    with pytest.raises(EtcdUnanswered):
        await one.transact({}, {A: Put(b"1")})
    assert trio.current_time() - begun == pytest.approx(TIMEOUT)
    cluster.carried_out = lambda *_: None
    cluster.heal("one")
    assert await held(one, A) == b"1"


async def test_a_watch_hears_everything_in_order_and_late(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd, two: ModelEtcd
) -> None:
    first = await one.transact({}, {A: Put(b"1")})
    cluster.link("two").delay = 5.0
    async with heard(two, first.revision) as changes:
        await one.transact({}, {A: Put(b"2")})
        await one.transact({}, {A: None, B: Put(b"3")})
        await trio.sleep(4.9)
        assert [each.revision for each in changes] == []
        await trio.sleep(0.3)
    assert [each.revision for each in changes] == [first.revision, first.revision + 1, first.revision + 2]
    assert {key: pair and pair.value for key, pair in changes[2].changes} == {A: None, B: b"3"}


async def test_what_was_compacted_cannot_be_watched(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    for value in (b"1", b"2", b"3"):
        done = await one.transact({}, {A: Put(value)})
    cluster.server.compact()
    with pytest.raises(Compacted):
        async with one.watch(ALL, done.revision - 1) as changes:
            await anext(changes)
    async with heard(one, done.revision) as told:
        await trio.sleep(1)
    assert [each.revision for each in told] == [done.revision]


async def test_a_deletion_in_the_compacted_revision_is_lost_as_in_etcd_3_4(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    await one.transact({}, {A: Put(b"1"), B: Put(b"1")})
    done = await one.transact({}, {A: None, B: Put(b"2")})
    cluster.server.compact()
    async with heard(one, done.revision) as told:
        await trio.sleep(1)
    assert [key for key, _ in told[0].changes] == [B]


async def test_a_full_database_takes_deletions_only(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    await one.transact({}, {A: Put(b"1")})
    lease, _ = await one.grant_lease(15)
    cluster.server.full = True
    for refused in (one.transact({}, {B: Put(b"1")}), one.grant_lease(15)):
        with pytest.raises(EtcdFull):
            await refused
    await one.keep_alive(lease)
    assert (await one.transact({}, {A: None})).done
    assert await held(one, A) is None


@pytest.mark.parametrize("new_cluster", [True, False])
async def test_after_a_restore_there_is_what_was(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd, new_cluster: bool
) -> None:
    before = await one.transact({}, {A: Put(b"1")})
    snapshot = cluster.server.copy(trio.current_time)
    await one.transact({}, {A: Put(b"2")})
    async with one.watch(ALL, before.revision + 1) as changes:
        await anext(changes)
        cluster.restore(snapshot, new_cluster=new_cluster)
        with pytest.raises(EtcdAway):
            await anext(changes)
    found = await one.read([A])
    assert (found.pairs[A].value, found.revision) == (b"1", before.revision)
    assert (found.cluster == before.cluster) is not new_cluster


async def test_without_a_leader_nothing_is_done(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd
) -> None:
    cluster.down = True
    asked: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: one.read([A]),
        lambda: one.transact({}, {A: Put(b"1")}),
        lambda: one.keep_alive(1),
    )
    for each in asked:
        with pytest.raises(EtcdAway):
            await each()
    cluster.down = False
    assert await held(one, A) is None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_model_conforms(
    autojump_clock: MockClock, cluster: ModelCluster, one: ModelEtcd, two: ModelEtcd, check: Check
) -> None:
    async def compact(revision: int) -> None:
        cluster.server.compact(revision)

    cluster.link("two").far = 0.1  # who writes while the other reads is the faster one
    await check(Subject(one, two, compact, ALL))
