# The store of one process: the real one, with SQLite in the host's folder and a way to the model of etcd.
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.provider import Provider
from brokerd.core.fleet.etcd import Changes, Etcd, Found, Put, Transacted
from brokerd.core.fleet.layout import FleetKeys
from brokerd.core.ports import StoredRecord
from brokerd.core.timing.breaker import Breaker
from brokerd.daemon.sharing import connect
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Self, Shared
from brokerd.edge.fleet.store import FleetStore
from brokerd.edge.store.database import Database
from brokerd.edge.store.store import SqliteStore
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.fleet.model_etcd import ModelEtcd
from tests.stress.simulation.fleet.witness import DIFFERENCE

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.host import Process

T = TypeVar("T")
FLEET = "prod"
KEK = hashlib.sha256(b"test-only").digest()  # on every host


class HostEtcd(Etcd):
    """A process's way to etcd. Nothing comes back to a process that is dead."""

    def __init__(self, process: Process, etcd: ModelEtcd) -> None:
        self._process, self._etcd = process, etcd

    async def read(self, keys: Iterable[bytes]) -> Found:
        with self._process.outside():
            return await self._etcd.read(keys)

    async def read_prefix(self, prefix: bytes) -> Found:
        with self._process.outside():
            return await self._etcd.read_prefix(prefix)

    async def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        with self._process.outside():
            return await self._etcd.transact(expected, changes)

    async def grant_lease(self, seconds: int) -> tuple[int, float]:
        with self._process.outside():
            return await self._etcd.grant_lease(seconds)

    async def keep_alive(self, lease: int) -> float:
        with self._process.outside():
            return await self._etcd.keep_alive(lease)

    async def end_lease(self, lease: int) -> None:
        with self._process.outside():
            await self._etcd.end_lease(lease)

    @contextlib.asynccontextmanager
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[AsyncIterator[Changes]]:
        self._process.check()
        async with self._etcd.watch(prefix, since) as changes:
            yield changes


class HostDisk(SqliteStore):
    """The host's own store; its disk is quick. A process dies before its work or after it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._running: list[Any] = []
        host = process.host
        super().__init__(host.folder, KEK, f"machine of {host.name}", process.entropy, self._work)

    async def do(self, work: Callable[[Database], T]) -> T:
        self._process.check()
        return await super().do(work)

    async def _work(self, work: Callable[[], None]) -> None:
        group = (getattr(work, "__defaults__", None) or ([],))[0]  # as SqliteStore.run binds it; other work has none
        self._running += group
        self._process.check()
        work()
        await trio.lowlevel.checkpoint()
        self._process.check()
        self._running = [each for each in self._running if each not in group]

    def abandon(self) -> None:
        """The process is gone: whoever waits for a write, shielded or not, is gone with it."""
        for _, result in (*self._running, *self._pending):
            result.error = Crashed()  # type: ignore[assignment]
            result.done.set()


class HostStore:
    """`store` is the Store port."""

    def __init__(self, process: Process) -> None:
        host, world = process.host, process.world
        self._local = HostDisk(process)
        etcd, keys = HostEtcd(process, world.cluster.client(host.name)), FleetKeys(FLEET)
        me = Self(FLEET, host.name, f"machine of {host.name}", process.entropy.bytes(16).hex(), "2.0", DIFFERENCE)
        mirror = Mirror(etcd, keys.root, process.clock)
        shared = Shared(etcd, keys, mirror, process.clock, process.entropy, me)
        self.store = FleetStore(self._local, shared)

    async def begin(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._local.run)
        nursery.start_soon(self.store.run)
        await self.store.joined()

    def all(self) -> list[StoredRecord]:
        return self.store.all()

    def breakers(self) -> dict[str, Breaker]:
        return self.store.breakers()

    def join(self, broker: TokenBroker, providers: Mapping[str, Provider]) -> None:
        connect(self.store, broker, providers)

    def abandon(self) -> None:
        self._local.abandon()

    def close(self) -> None:
        self._local.close()
