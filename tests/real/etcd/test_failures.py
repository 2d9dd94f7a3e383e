# What befalls a cluster: servers that are killed, hang, or lose their leader; a full database; requests that are too
# large. The client says of each request whether it was surely not carried out.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme

from brokerd.core.fleet.etcd import ABSENT, Changes, EtcdAway, EtcdFull, EtcdRefused, EtcdUnanswered, Put
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.system.clock import SystemClock
from tests.real.etcd.cluster import Cluster, running
from tests.real.etcd.conftest import prefix

pytestmark = pytest.mark.real
WITHIN = 20.0  # seconds


@asynccontextmanager
async def client(cluster: Cluster, first: int = 0) -> AsyncIterator[EtcdClient]:
    """It asks the servers in order, from `first` on."""
    urls = cluster.urls
    made = EtcdClient(urls[first:] + urls[:first], cluster.settings, SystemClock())
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def cluster(etcd_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Repaired behind the test."""
    yield etcd_cluster
    await etcd_cluster.repair()


async def follower_of(cluster: Cluster) -> int:
    return (await cluster.leader() + 1) % 3


async def loss(changes: AsyncIterator[Changes]) -> EtcdAway:
    """How the watch ends, at last."""
    with trio.fail_after(WITHIN):
        try:
            async for _ in changes:
                pass
        except EtcdAway as error:
            return error
    raise AssertionError("a watch ended without an error")


async def test_when_the_server_is_killed_the_next_is_asked_and_the_watch_ends(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    async with client(cluster, first) as etcd:
        since = (await etcd.transact({}, {key: Put(b"1")})).revision
        async with etcd.watch(key, since + 1) as changes:
            cluster.kill(first)
            assert (await etcd.read([key])).pairs[key].value == b"1"
            assert "the watch" in str(await loss(changes))
        assert etcd.server == cluster.urls[(first + 1) % 3]
        async with etcd.watch(key, since + 1) as changes:
            done = await etcd.transact({}, {key: Put(b"2")})
            assert (await anext(changes)).revision == done.revision


async def test_a_transaction_goes_to_the_next_server_if_the_first_cannot_be_reached(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    cluster.kill(first)
    async with client(cluster, first) as etcd:
        assert (await etcd.transact({key: ABSENT}, {key: Put(b"1")})).done


async def test_a_transaction_that_a_hanging_server_took_is_unanswered_and_not_repeated(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    async with client(cluster, first) as etcd:
        since = (await etcd.read([key])).revision
        async with etcd.watch(key, since + 1) as changes:
            cluster.pause(first)
            with trio.fail_after(WITHIN), pytest.raises(EtcdUnanswered):
                await etcd.transact({}, {key: Put(b"1")})
            assert not (await etcd.read([key])).pairs
            await loss(changes)


async def test_a_hanging_server_costs_a_read_a_few_seconds(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    async with client(cluster, first) as etcd:
        await etcd.transact({}, {key: Put(b"1")})
        cluster.pause(first)
        began = trio.current_time()
        assert key in (await etcd.read([key])).pairs
        assert trio.current_time() - began < 5


async def test_an_election_delays_a_transaction_and_ends_no_watch(cluster: Cluster) -> None:
    leader, key = await cluster.leader(), prefix() + b"a"
    async with client(cluster, (leader + 1) % 3) as etcd:
        since = (await etcd.transact({}, {key: Put(b"0")})).revision
        async with etcd.watch(key, since + 1) as changes:
            cluster.kill(leader)
            await cluster.leader()
            done = await etcd.transact({}, {key: Put(b"1")})
            with trio.fail_after(WITHIN):
                assert (await anext(changes)).revision == done.revision


async def test_without_a_majority_nothing_is_done_and_that_is_said(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    async with client(cluster, first) as etcd:
        since = (await etcd.transact({}, {key: Put(b"0")})).revision
        async with etcd.watch(key, since + 1) as changes:
            for number in {0, 1, 2} - {first}:
                cluster.kill(number)
            # No more than the server has noticed it: until then it may still take what it cannot carry out.
            with trio.fail_after(WITHIN):
                while True:
                    with pytest.raises((EtcdAway, EtcdUnanswered)) as caught:
                        await etcd.transact({key: since}, {key: Put(b"1")})
                    if isinstance(caught.value, EtcdAway):
                        break
            with trio.fail_after(WITHIN), pytest.raises(EtcdAway):
                await etcd.read([key])
            await loss(changes)
        await cluster.repair()
        assert key in (await etcd.read([key])).pairs


async def test_what_was_acknowledged_is_there_whatever_is_killed(cluster: Cluster) -> None:
    base, acknowledged, unanswered = prefix(), [], []
    stops = trio.Event()

    async def write(etcd: EtcdClient, name: bytes) -> None:
        for number in range(10_000):
            if stops.is_set():
                return
            key = base + name + b"%d" % number
            try:
                done = await etcd.transact({key: ABSENT}, {key: Put(name)})
            except EtcdUnanswered:
                unanswered.append(key)
            except EtcdAway:
                await trio.sleep(0.05)
            else:
                assert done.done, "it was carried out twice"
                acknowledged.append(key)

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for number in range(3):
            etcd = await stack.enter_async_context(client(cluster, number))
            nursery.start_soon(write, etcd, b"writer-%d-" % number)
        for victim in (await cluster.leader(), (await cluster.leader() + 1) % 3):
            before = len(acknowledged)
            cluster.kill(victim)
            with trio.fail_after(WITHIN):
                while len(acknowledged) < before + 100:
                    await trio.sleep(0.05)
            await cluster.revive(victim)
        stops.set()
    async with client(cluster) as etcd:
        found = await etcd.read_prefix(base)
    assert set(acknowledged) <= set(found.pairs)
    assert set(found.pairs) <= {*acknowledged, *unanswered}


async def test_a_request_that_is_too_large_is_refused_with_a_remedy(cluster: Cluster) -> None:
    key = prefix() + b"a"
    async with client(cluster) as etcd:
        with pytest.raises(EtcdRefused, match=r"larger than .*--max-request-bytes"):
            await etcd.transact({}, {key: Put(bytes(2 << 20))})
        with pytest.raises(EtcdRefused, match=r"too large.*--max-request-bytes"):
            await etcd.transact({}, {key: Put(bytes((3 << 19) + 1000))})
        with pytest.raises(EtcdRefused, match=r"too many operations.*--max-txn-ops"):
            await etcd.transact({}, {key + b"%d" % number: Put(b"") for number in range(200)})
        assert not (await etcd.read([key])).pairs


async def test_an_authority_that_is_not_ours_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    settings = replace(cluster.settings, ca_file=tmp_path / "other.pem")
    etcd = EtcdClient(cluster.urls, settings, SystemClock())
    with pytest.raises(EtcdAway, match="unknown authority"):
        await etcd.transact({}, {prefix(): Put(b"1")})


async def test_a_call_that_is_cancelled_ends_at_once(cluster: Cluster) -> None:
    first, key = await follower_of(cluster), prefix() + b"a"
    async with client(cluster, first) as etcd:
        await etcd.read([key])
        cluster.pause(first)
        began = trio.current_time()
        with trio.move_on_after(0.2):
            await etcd.transact({}, {key: Put(b"1")})
        with trio.move_on_after(0.2):
            async with etcd.watch(key, 1):
                pass
        assert trio.current_time() - began < 2


async def test_a_large_page_is_read_in_smaller_ones(cluster: Cluster) -> None:
    base = prefix()
    async with client(cluster) as etcd:
        for number in range(30):
            await etcd.transact({}, {base + b"%02d" % number: Put(bytes(1 << 20))})
        found = await etcd.read_prefix(base)  # 40 MiB of JSON; one answer has at most 16
        assert [len(pair.value) for pair in found.pairs.values()] == [1 << 20] * 30
        since = min(pair.modified for pair in found.pairs.values())
        async with etcd.watch(base, since) as changes:
            with trio.fail_after(WITHIN):
                seen = [await anext(changes) for _ in range(30)]
        assert [each.changes[0][0] for each in seen] == sorted(found.pairs)


@pytest.fixture(scope="module")
def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With little room, and a word each 200 ms from watches on which nothing happens."""
    flags = ("--quota-backend-bytes=4000000", "--experimental-watch-progress-notify-interval=200ms")
    with running(tmp_path_factory.mktemp("small"), flags=flags) as cluster:
        yield cluster


async def test_a_watch_on_which_nothing_happens_says_how_far_it_is(small_cluster: Cluster) -> None:
    base = prefix()
    async with client(small_cluster) as etcd:
        since = (await etcd.read([base])).revision
        async with etcd.watch(base, since + 1) as changes:
            with trio.fail_after(WITHIN):
                first = await anext(changes)
                elsewhere = (await etcd.transact({}, {prefix(): Put(b"1")})).revision
                while (last := await anext(changes)).revision < elsewhere:
                    pass
        assert first.changes == last.changes == ()
        assert first.revision == since
        assert last.revision == elsewhere


async def test_a_full_database_is_said_and_ends_no_watch(small_cluster: Cluster) -> None:
    key = prefix() + b"a"
    async with client(small_cluster) as etcd:
        since = (await etcd.transact({}, {key: Put(b"0")})).revision
        async with etcd.watch(key, since + 1) as changes:
            for _ in range(10):
                with contextlib.suppress(EtcdFull):
                    await etcd.transact({}, {key + b"large": Put(bytes(500_000))})
            with pytest.raises(EtcdFull, match=r"space.*etcdctl alarm disarm"):
                await etcd.transact({}, {key + b"large": Put(b"")})
            server = etcd.server
            newest = (await etcd.read([key])).revision
            with trio.fail_after(WITHIN):
                while (await anext(changes)).revision < newest:
                    pass
            assert etcd.server == server


async def test_a_server_without_a_gateway_is_told_to_have_one(tmp_path: Path) -> None:
    with running(tmp_path, flags=("--enable-grpc-gateway=false",)) as cluster:
        async with client(cluster) as etcd:
            with pytest.raises(EtcdAway, match="started with --enable-grpc-gateway"):
                await etcd.transact({}, {prefix(): Put(b"1")})
            with pytest.raises(EtcdAway, match="started with --enable-grpc-gateway"):
                async with etcd.watch(prefix(), 1):
                    pass
