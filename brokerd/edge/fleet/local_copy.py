# What this host keeps of its fleet in its own store: a sealed copy of every record, so that living tokens are served
# while etcd is away, also after a restart; records that etcd could not be told yet; and how far the fleet was (law 15).
from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
import trio

from brokerd.core.fleet.layout import RecordPlace
from brokerd.core.grant.record import Record
from brokerd.core.ports import StoreError
from brokerd.core.sealing import EnvelopeError
from brokerd.edge.store.database import Database
from brokerd.edge.store.sealed_meta import FLEET_KEYS, put_sealed, sealed_value
from brokerd.edge.store.sealed_record import seal
from brokerd.edge.store.store import SqliteStore

FLEET, UNSENT, NUMBER = "fleet", "unsent ", "number "  # in the table meta


class KnownFleet(msgspec.Struct, frozen=True):
    """What this host last knew of its fleet."""

    store: str
    epoch: int
    cluster: int
    revision: int


class Unsent(msgspec.Struct, frozen=True):
    """A record of the local store that etcd has not got, of that `generation`. `based_on`: the revision of the record
    that it replaces there; `fence`: the revision of the journal row of its exchange, 0: it has none; `write`: what that
    row says. `number`: of the record."""

    place: RecordPlace
    based_on: int
    fence: int = 0
    generation: int = 0
    write: bytes = b""
    number: int = 0


class Copy(NamedTuple):
    record: Record | None  # None: it was deleted
    history: bytes
    number: int


class LocalCopy:
    def __init__(self, local: SqliteStore) -> None:
        self._local = local
        self._waiting: dict[RecordPlace, Copy] = {}
        self._wake = trio.Event()
        self.seen: Callable[[], KnownFleet | None] = lambda: None  # how far the fleet is

    async def known(self) -> KnownFleet | None:
        """Raises StoreError."""
        value = await self._local.do(lambda database: database.meta(FLEET))
        return None if value is None else msgspec.json.decode(value, type=KnownFleet)

    async def unsent(self) -> dict[RecordPlace, Unsent]:
        """Raises StoreError."""
        values = await self._local.do(lambda database: database.metas(UNSENT))
        found = [msgspec.json.decode(value, type=Unsent) for value in values.values()]
        return {each.place: each for each in found}

    async def numbers(self) -> dict[RecordPlace, int]:
        """The newest number of each record that this host has seen. Raises StoreError."""
        values = await self._local.do(lambda database: database.metas(NUMBER))
        return {RecordPlace(*name.removeprefix(NUMBER).rsplit(" ", 1)): int(value) for name, value in values.items()}

    async def remember(self, known: KnownFleet) -> None:
        """Raises StoreError."""
        await self._local.do(lambda database: database.set_meta(FLEET, msgspec.json.encode(known).decode()))

    async def remember_keys(self, keys: dict[int, bytes]) -> None:
        """The fleet's data keys, sealed: if its hosts change their keys one after the other, each goes on with this.
        Raises StoreError."""
        plain = msgspec.msgpack.encode(keys)
        await self._local.do(lambda database: put_sealed(database, self._local.keys, FLEET_KEYS, plain))

    async def keys(self) -> dict[int, bytes]:
        """Raises StoreError."""

        def work(database: Database) -> bytes | None:
            with contextlib.suppress(EnvelopeError):  # there are none
                return sealed_value(database, self._local.keys, FLEET_KEYS)
            return None

        plain = await self._local.do(work)
        return {} if plain is None else msgspec.msgpack.decode(plain, type=dict[int, bytes])

    def put(self, place: RecordPlace, record: Record | None, history: bytes, number: int) -> None:
        """In the next transaction. It may be lost: etcd has it, and what it could not be told before counts no more."""
        self._waiting[place] = Copy(record, history, number)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake, copies, self._waiting = trio.Event(), self._waiting, {}
            try:
                await self._local.do(partial(self._put, copies=copies, seen=self.seen()))
            except StoreError:
                self._waiting = copies | self._waiting
                await trio.sleep(1.0)
                self._wake.set()

    async def keep_unsent(self, unsent: Unsent, record: Record, history: bytes) -> None:
        """Durable when it returns. Raises StoreError."""

        def work(database: Database) -> None:
            self._write(database, {unsent.place: Copy(record, history, unsent.number)})
            database.set_meta(_name(unsent.place), msgspec.json.encode(unsent).decode())

        self._waiting.pop(unsent.place, None)
        await self._local.do(work)

    async def sent(self, place: RecordPlace) -> None:
        """etcd has it now. Raises StoreError."""
        await self._local.do(lambda database: database.drop_meta(_name(place)))

    def _put(self, database: Database, copies: dict[RecordPlace, Copy], seen: KnownFleet | None) -> None:
        self._write(database, copies)
        if seen is not None:
            database.set_meta(FLEET, msgspec.json.encode(seen).decode())
        for place in copies:
            database.drop_meta(_name(place))

    def _write(self, database: Database, copies: dict[RecordPlace, Copy]) -> None:
        for place, (record, history, number) in copies.items():
            database.set_meta(f"{NUMBER}{place.grant} {place.fingerprint}", str(number))
            if record is None:
                database.delete(*place)
                continue
            sealed = seal(database, self._local.keys, record, place.fingerprint)
            database.put_copy(place.grant, place.fingerprint, record.generation, sealed)
            if history:
                database.put_history(place.grant, place.fingerprint, history)


def _name(place: RecordPlace) -> str:
    return f"{UNSENT}{place.grant} {place.fingerprint}"
