# A model of an etcd cluster on trio's virtual time: what the servers hold, and what befalls requests on their way. It
# implements the port of brokerd/core/fleet/etcd.py and knows nothing else of brokerd. model_server.py is what is asked.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, TypeVar

import trio

from brokerd.core.fleet.etcd import (
    Changes,
    Etcd,
    EtcdAway,
    EtcdError,
    EtcdFull,
    EtcdUnanswered,
    Found,
    Pair,
    Put,
    Transacted,
)
from tests.stress.simulation.fleet.model_server import Server

T = TypeVar("T")
TIMEOUT = 5.0  # seconds until a client gives an answer up
SILENCE = 10.0  # seconds without a word after which a client gives a watch up
CHECKED = 0.5  # seconds between two looks for leases that have ended, as in etcd
CarriedOut = Callable[[str, Transacted, Mapping[bytes, Put | None], Mapping[bytes, Pair]], None]
FAULTS = ("lost-before", "lost-after", "later", "refused")


@dataclass
class Fault:
    """What befalls the next `requests` requests that change something: lost on their way, carried out and the answer
    lost, carried out `seconds` after the client has given up, or refused. `host`: only those of this host;
    `transactions`: only these, and no leases."""

    kind: str
    host: str | None = None
    requests: int = 1
    seconds: float = 0.0
    transactions: bool = False


@dataclass
class Link:
    """The way of one host to the cluster. `cut`: nothing comes through in either direction; `far`: how far it is, 1 for
    the cluster's latency; `delay`: seconds by which its watches are late; `broken` is set when its connection has
    ended."""

    host: str
    cut: bool = False
    far: float = 1.0
    delay: float = 0.0
    healed: trio.Event = field(default_factory=trio.Event)
    broken: trio.Event = field(default_factory=trio.Event)


@dataclass
class _Request(Generic[T]):
    """A request under way; the servers carry it out whether its client waits for the answer or not."""

    work: Callable[[], T]
    answered: trio.Event = field(default_factory=trio.Event)
    value: T | None = None
    error: EtcdError | None = None


class ModelCluster:
    """A cluster. `nursery` runs what the servers do by themselves. `latency`: seconds of each way, at most.
    `carried_out`: called with the host and the result of each transaction that was done, what it changed and what was
    there before;
    `disconnected` with each host whose connection has ended."""

    def __init__(self, nursery: trio.Nursery, random: Random, *, latency: float = 0.01) -> None:
        self.server = Server(trio.current_time)
        self.random, self.latency = random, latency
        self.links: dict[str, Link] = {}
        self.faults: list[Fault] = []
        self.down = False  # no leader: every request is refused
        self.carried_out: CarriedOut = lambda *_: None
        self.disconnected: Callable[[str], None] = lambda _: None
        self._nursery = nursery
        self._begin(self._run)

    # -- what a schedule does to it

    def client(self, host: str) -> ModelEtcd:
        return ModelEtcd(self, host, self.link(host))

    def link(self, host: str) -> Link:
        return self.links.setdefault(host, Link(host))

    def cut(self, host: str) -> None:
        """A partition: nothing of that host comes through any more, nor to it."""
        self.link(host).cut = True

    def heal(self, host: str) -> None:
        link = self.link(host)
        link.cut = False
        link.healed.set()
        link.healed = trio.Event()

    def lose_watches(self, host: str | None = None) -> None:
        """Every connection ends, or those of one host."""
        for name, link in self.links.items():
            if host in (None, name):
                self.disconnect(link)

    def disconnect(self, link: Link) -> None:
        self.disconnected(link.host)
        link.broken.set()
        link.broken = trio.Event()

    def change_leader(self) -> None:
        """Every connection ends, and every lease that lives gets its whole life again, as etcd has it."""
        self.server.renew_leases()
        self.lose_watches()

    def restore(self, snapshot: Server, *, new_cluster: bool) -> None:
        """The cluster is what it was when the snapshot was taken, or a new one with that content."""
        self.server.end()
        self.server = snapshot.copy(trio.current_time)
        if new_cluster:
            self.server.cluster += 1_000
        self.server.renew_leases()
        self.lose_watches()

    # -- the servers

    async def _run(self) -> None:
        while True:
            await trio.sleep(CHECKED)
            self.server.end_leases()

    def _begin(self, work: Callable[..., Any], *values: object) -> None:
        """Run it as the servers do, in no context of a client."""
        Context().run(self._nursery.start_soon, work, *values)

    def _fault(self, host: str, *, is_transaction: bool) -> Fault:
        for fault in self.faults:
            if fault.host in (None, host) and (is_transaction or not fault.transactions):
                fault.requests -= 1
                if fault.requests <= 0:
                    self.faults.remove(fault)
                return fault
        return Fault("")

    def way(self, link: Link) -> float:
        return self.random.random() * self.latency * link.far

    async def ask(self, host: str, work: Callable[[Server], T], *, changes: bool, is_transaction: bool = False) -> T:
        """A request of a host, from its sending to its answer or its end. Raises EtcdError."""
        link = self.link(host)
        fault = self._fault(host, is_transaction=is_transaction) if changes else Fault("")
        if link.cut or self.down or fault.kind == "refused":
            await trio.sleep(self.way(link) if not link.cut else TIMEOUT * self.random.random())
            self.disconnect(link)
            raise EtcdAway("etcd: no endpoint could be reached" if link.cut else "etcd: no leader")
        request = _Request(lambda: work(self.server))
        self._begin(self._carry, link, request, fault)
        with trio.move_on_after(TIMEOUT):
            await request.answered.wait()
        if not request.answered.is_set():
            self.disconnect(link)
            words = f"etcd did not answer within {TIMEOUT:g} s"
            raise EtcdUnanswered(words) if changes else EtcdAway(words)
        if request.error is not None:
            if isinstance(request.error, EtcdAway) and not isinstance(request.error, EtcdFull):
                self.disconnect(link)
            raise request.error
        return request.value  # type: ignore[return-value]

    async def _carry(self, link: Link, request: _Request[Any], fault: Fault) -> None:
        await trio.sleep(self.way(link) + (TIMEOUT + fault.seconds if fault.kind == "later" else 0.0))
        if fault.kind == "lost-before" or (link.cut and fault.kind != "later"):
            return
        if self.down:
            request.error = EtcdAway("etcd: no leader")
        else:
            try:
                request.value = request.work()
            except EtcdError as error:
                request.error = error
        await trio.sleep(self.way(link))
        if fault.kind in ("lost-after", "later") or link.cut:
            return
        request.answered.set()


class ModelEtcd(Etcd):
    """The way of one host to the cluster: the port."""

    def __init__(self, cluster: ModelCluster, host: str, link: Link) -> None:
        self._cluster, self._host, self._link = cluster, host, link

    async def read(self, keys: Iterable[bytes]) -> Found:
        wanted = list(keys)
        return await self._ask(lambda server: server.read(wanted), changes=False)

    async def read_prefix(self, prefix: bytes) -> Found:
        return await self._ask(lambda server: server.read_prefix(prefix), changes=False)

    async def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        expected, changes = dict(expected), dict(changes)

        def work(server: Server) -> Transacted:
            before = server.read(changes).pairs
            ended = server.transact(expected, changes)
            if ended.done:
                self._cluster.carried_out(self._host, ended, changes, before)
            return ended

        return await self._cluster.ask(self._host, work, changes=True, is_transaction=True)

    async def grant_lease(self, seconds: int) -> tuple[int, float]:
        lease = await self._ask(lambda server: server.grant_lease(seconds), changes=True)
        return lease, float(seconds)

    async def keep_alive(self, lease: int) -> float:
        return await self._ask(lambda server: server.keep_alive(lease), changes=True)

    async def end_lease(self, lease: int) -> None:
        await self._ask(lambda server: server.end_lease(lease), changes=True)

    @contextlib.asynccontextmanager
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[AsyncIterator[Changes]]:
        async with contextlib.aclosing(self._changes(prefix, since)) as changes:
            yield changes

    async def _ask(self, work: Callable[[Server], T], *, changes: bool) -> T:
        return await self._cluster.ask(self._host, work, changes=changes)

    async def _changes(self, prefix: bytes, since: int) -> AsyncIterator[Changes]:
        cluster, link = self._cluster, self._link
        server, broken = cluster.server, link.broken
        await self._pause(broken, cluster.way(link))
        if link.cut or cluster.down or broken.is_set():
            raise self._lost(broken)
        while True:
            found = server.after(prefix, since)  # raises Compacted
            if found is None:
                since = max(since, server.revision + 1)
                if await self._until_more(server, broken):
                    continue
                if not (link.cut or broken.is_set() or server.ended.is_set()):
                    yield Changes((), server.revision, server.cluster)  # etcd says how far it is
                    continue
            # What the server has sent comes late, but in order; meanwhile it may be lost with the connection.
            late = found[1] + link.delay - trio.current_time() if found else 0.0
            await self._pause(broken, max(late, 0.0) + cluster.way(link))
            if link.cut:
                await self._pause(broken, SILENCE)
            if link.cut or broken.is_set() or found is None:
                raise self._lost(broken)
            since = found[0].revision + 1
            yield found[0]

    async def _until_more(self, server: Server, broken: trio.Event) -> bool:
        """Whether the server has written more: False, if the connection or the server has ended or nothing happens."""
        changed, revision = server.changed, server.revision
        async with trio.open_nursery() as nursery:

            async def cancel_after(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            for event in (changed, broken, server.ended):
                nursery.start_soon(cancel_after, event)
            await trio.sleep(SILENCE)
            nursery.cancel_scope.cancel()
        return server.revision != revision and not (broken.is_set() or server.ended.is_set())

    def _lost(self, broken: trio.Event) -> EtcdAway:
        if not broken.is_set():
            self._cluster.disconnect(self._link)
        return EtcdAway("etcd: the watch was lost")

    async def _pause(self, broken: trio.Event, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await broken.wait()
