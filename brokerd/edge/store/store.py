# The store as the broker uses it: records sealed and opened, writes grouped in one transaction, a thread of its own.
# database.py has the SQL, data_keys.py the keys, core/grant/record.py what a record holds.
from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from brokerd.core.audit.chain import Head, Memory
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.grant.record import Record
from brokerd.core.ports import Entropy, StoredRecord, StoreError, StoreUnavailable
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment
from brokerd.edge.store import resealing
from brokerd.edge.store.alone import Alone
from brokerd.edge.store.data_keys import DataKeys, fault
from brokerd.edge.store.database import FILE, GONE, Database, code_of, opened
from brokerd.edge.store.lock import Lock, opened_alone
from brokerd.edge.store.migration import Progress, discard_copies, migrated
from brokerd.edge.store.provider_metadata import opened_metadata, put_metadata
from brokerd.edge.store.sealed_meta import AUDIT_HEADS, audit_memory_of, put_sealed
from brokerd.edge.store.sealed_record import open_row, seal
from brokerd.edge.store.unwritten_records import Pieces, Place, Unstored

T = TypeVar("T")
Work = Callable[[Database], Any]
PROBE = 2.0  # seconds between tests whether the disk works again, if nobody else writes
ENDED = "brokerd stops: nothing is written any more"
OLDER = "older"  # instead of the machine: the store has fewer commits than its directory has seen


async def in_thread(work: Callable[[], T]) -> T:
    """Runs the store's work in its own thread, one at a time (law 13)."""
    return await trio.to_thread.run_sync(work, limiter=_thread)


_thread = trio.CapacityLimiter(1)


class SqliteStore(Alone):
    """An open store; core/ports.py describes most methods. The asynchronous ones wait for `run`, which must be running.
    `runner` runs the blocking work: in a thread, or in simulations in the task itself.

    Many attributes: the database, its keys, the waiting writes, and what is wrong with the disk."""

    def __init__(
        self,
        folder: Path,
        kek: bytes | None,
        machine: str,
        entropy: Entropy,
        runner: Callable[[Callable[[], None]], Awaitable[None]] = in_thread,
        progress: Progress = lambda _: None,
        pieces: Pieces | None = None,
    ) -> None:
        """Opens or creates the store in `folder`; without a key it is locked. One of an earlier release is brought to
        the present schema. Blocking. Raises StoreError, WrongKey: then nothing was changed."""
        self._folder, self._machine = folder, machine
        self.keys, self._entropy = DataKeys(entropy), entropy
        self._unstored, self._runner = Unstored(pieces, self.keys), runner
        self._lock, self._database = opened_alone(folder)
        try:
            self._attach()
            if kek is not None:
                self.keys.open(self._database, kek)
                self.keys.committed()
            self.is_new = self._database.is_new
            self.migration = migrated(self._database, progress)
            unfinished = self._database.resealing()
            self.resealing_since = unfinished and unfinished[1]
            self._commits = self._attempted = self._database.commits()
            if self._commits < self._lock.seen:  # it is an older copy, or has lost its log
                self._database.set_meta("machine", OLDER)
            elif self._database.meta("machine") is None:
                self._database.set_meta("machine", self._identity)
            self._lock.note(self._commits)
            self.adopted = self._database.meta("machine") == self._identity
        except BaseException:
            self.close()
            raise
        self._is_open, self._has_ended = True, False
        self._pending: list[tuple[Work, _Result]] = []
        self._wake = trio.Event()
        self.trouble: str | None = None  # what is wrong with the disk, for status
        self.since: float | None = None  # when that began, in Unix seconds
        self.noticed: Callable[[], None] = lambda: None  # called when `trouble` has changed
        self.took: Callable[[float], None] = lambda _: None  # called with the seconds that each group of writes took

    def _attach(self) -> None:
        """Take identity and keys from the open database."""
        self._identity = self._identity_of(self._database.inode)
        self.keys.attach(self._database)

    def _identity_of(self, inode: int) -> str:
        return f"{self._machine} {inode}"

    # -- synchronous, for the start

    def all(self) -> list[StoredRecord]:
        """Every record. What the process before could not store is stored now, if possible. Blocking."""
        found, generations = dict[Place, StoredRecord](), dict[Place, int]()
        for row in self._database.each_row():
            generations[place := (row.grant, row.fingerprint)] = row.generation
            found[place] = open_row(self.keys, row)
        for piece, record in self._unstored.taken(generations):
            place, result = (piece.grant, piece.fingerprint), _Result()
            self._group([(self._writing(record, piece.fingerprint, piece.replaces, False, b""), result)])
            if stored := result.error is None:
                self._unstored.drop(*place)
            known: dict[str, Any] = {"record": record, "damage": None, "recovered": True, "replaces": piece.replaces}
            found[place] = replace(found.get(place) or StoredRecord(*place, None, None), unstored=not stored, **known)
        return list(found.values())

    def breakers(self) -> dict[str, Breaker]:
        return self._database.breakers()

    def metadata(self) -> dict[str, Metadata]:
        return opened_metadata(self._database, self.keys)

    @property
    def path(self) -> Path:
        return self._database.path

    def close(self) -> None:
        """Closes every file, so that the disk can be unmounted."""
        self._database.close()
        self._lock.release()

    # -- asynchronous

    async def run(self) -> None:
        """Runs the waiting work: everything that waits becomes one transaction and one sync. While the disk fails, it
        tests whether the disk works again. After its end no work is done."""
        try:
            while True:
                with trio.move_on_after(PROBE if self.trouble else math.inf):
                    await self._wake.wait()
                await self._next_group()
        finally:
            self._has_ended = True
            for _, result in self._pending:  # else they would wait for ever
                result.error = result.error or StoreUnavailable(ENDED)
                result.done.set()

    async def _next_group(self) -> None:
        before, began = self.trouble, trio.current_time()
        group, self._pending, self._wake = self._pending, [], trio.Event()
        with trio.CancelScope(shield=True):
            await self._runner(lambda group=group: self._group(group))  # type: ignore[misc]
        if self.trouble != before:
            self.noticed()
        self.took(trio.current_time() - began)
        for _, result in group:
            result.done.set()

    async def read(self, grant: str) -> list[StoredRecord]:
        return await self.do(lambda database: [open_row(self.keys, row) for row in database.rows(grant)])

    async def newest(self, grant: str) -> list[StoredRecord]:
        rows = await self.do(lambda database: database.rows(grant))
        found = {row.fingerprint: open_row(self.keys, row) for row in rows}
        on_disk = {row.fingerprint: row.generation for row in rows}
        for each in self.kept():
            there = on_disk.get(each.fingerprint)
            if each.grant != grant or each.record is None:
                continue
            if there is not None and there >= each.record.generation:  # a commit that failed and reached the disk
                self._unstored.drop(grant, each.fingerprint)
                continue
            before = found.get(each.fingerprint, each)
            found[each.fingerprint] = replace(
                before, record=each.record, damage=None, recovered=True, unstored=True, replaces=there
            )
        return list(found.values())

    async def dormant(self) -> list[StoredRecord]:
        rows = await self.do(lambda database: [row for row in database.each_row() if row.dormant_since is not None])
        return [open_row(self.keys, row) for row in rows]

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment, _: object = None) -> None:
        await self.do(lambda database: database.put_attempt(grant, fingerprint, generation, at))

    async def write(
        self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool, history: bytes = b""
    ) -> None:
        try:
            await self.do(self._writing(record, fingerprint, replaces, concludes, history))
        except StoreUnavailable:
            if self._unstored.is_possible:
                with trio.CancelScope(shield=True):
                    await self._runner(lambda: self._unstored.keep(record, fingerprint, replaces))
            raise
        self._unstored.drop(record.name, fingerprint)

    def _writing(self, record: Record, fingerprint: str, replaces: int | None, concludes: bool, history: bytes) -> Work:
        def work(database: Database) -> None:
            sealed = seal(database, self.keys, record, fingerprint)
            database.put_record(record.name, fingerprint, record.generation, sealed, replaces)
            if history:
                database.put_history(record.name, fingerprint, history)
            if concludes:
                database.end_attempt(record.name, fingerprint)

        return work

    def kept(self) -> list[StoredRecord]:
        return [
            StoredRecord(*place, each.record, None, recovered=True, unstored=True, replaces=each.piece.replaces)
            for place, each in self._unstored.all()
        ]

    def is_kept_by_systemd(self, grant: str, fingerprint: str) -> bool:
        return self._unstored.holds(grant, fingerprint)

    async def set_dormant(self, records: Iterable[tuple[str, str]], since: float | None) -> None:
        places = list(records)
        await self.do(lambda database: database.set_dormant(places, since))

    async def forget(self, grant: str, fingerprint: str | None = None) -> int:
        number = await self.do(lambda database: database.delete(grant, fingerprint))
        self._unstored.drop(grant, fingerprint)
        return number

    async def write_breaker(self, provider: str, breaker: Breaker) -> None:
        await self.do(lambda database: database.put_breaker(provider, breaker))

    async def write_metadata(self, provider: str, metadata: Metadata) -> None:
        await self.do(lambda database: put_metadata(database, self.keys, provider, metadata))

    async def audit_memory(self) -> Memory:
        """The audit log's key, made where there is none, and its heads. Raises StoreUnavailable."""
        return await self.do(lambda database: audit_memory_of(database, self.keys, self._entropy))

    async def remember_audit(self, heads: Mapping[str, Head]) -> None:
        """Store where the audit log ends, so that a cut is noticed. Raises StoreUnavailable."""
        await self.do(lambda database: put_sealed(database, self.keys, AUDIT_HEADS, msgspec.msgpack.encode(heads)))

    async def adopt(self) -> None:
        await self.do(lambda database: database.set_meta("machine", self._identity))
        self.adopted = True

    async def snapshot(self) -> bytes:
        taken: list[bytes] = []
        try:
            await self._runner(lambda: taken.append(self._database.snapshot()))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: the store cannot be read: {error}") from None
        return taken[0]

    # -- keys

    @property
    def is_locked(self) -> bool:
        return not self.keys.is_open

    @property
    def passphrase(self) -> str:
        return self.keys.passphrase

    async def lock(self) -> None:
        await self._runner(self.keys.close)

    async def unlock(self, kek: bytes, passphrase: str = "") -> None:
        await self.do(lambda database: self.keys.open(database, kek, passphrase))

    async def rewrap(self, kek: bytes, passphrase: str = "") -> None:
        await self.do(lambda database: self.keys.rewrap(database, kek, passphrase))

    def is_in_use(self, kek: bytes) -> bool:
        return self.keys.is_in_use(kek)

    async def reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]:
        """Seals in groups between other writes, then deletes the old data keys. An interrupted run has deleted no data
        key that is in use, and `goes_on` later. The data keys of records that cannot be opened stay."""
        current = await self.do(resealing.begun) if goes_on else None
        if current is None and not goes_on:
            since = round(time.time(), 2)
            current = await self.do(lambda database: resealing.begin(database, self.keys, since))
            self.resealing_since = since
        count = damaged = 0
        if current is not None:  # else its last commit seemed to fail, but reached the disk
            count, damaged = await resealing.everything(self.do, self.keys, current)
            left = await self.do(lambda database: resealing.end(database, self.keys, current, self._unstored.sealed))
            await self._runner(lambda: self._forget_old_keys(current, left))
        self.resealing_since = None
        return count, damaged

    def _forget_old_keys(self, current: int, left: list[int]) -> None:
        self.keys.retired(current, left)
        with contextlib.suppress(sqlite3.Error):
            self._database.checkpoint()
        discard_copies(self._folder)  # the old data keys open them

    async def do(self, work: Callable[[Database], T]) -> T:
        """Raises StoreUnavailable, or what `work` raises."""
        if self._has_ended:
            raise StoreUnavailable(ENDED)
        result = _Result()
        self._pending.append((work, result))
        self._wake.set()
        with trio.CancelScope(shield=True):  # the work runs in any case, so wait for its result
            await result.done.wait()
        if result.error is not None:
            raise result.error
        return result.value  # type: ignore[no-any-return]

    def _group(self, group: list[tuple[Work, _Result]]) -> None:
        """In the thread: run the group in one transaction. Work that raises StoreError has changed nothing and fails
        alone. If the disk fails, all work of the group fails."""
        try:
            self._open_again_if_needed()
            database = self._database
            self.keys.begin(database)
            for work, result in group:
                try:
                    result.value = work(database)
                except StoreError as error:
                    result.error = error
                except (ValueError, TypeError) as error:  # the record cannot be encoded
                    result.error = StoreError(f"the record cannot be written: {type(error).__name__}")
            self._conclude(database, probes=not group)
        except Exception as error:
            known = isinstance(error, sqlite3.Error | OSError | StoreError)
            # A fault of brokerd must not end the only writer: all others would wait for ever.
            self._fail(error if known else fault(self.path, error))
            for _, result in group:
                result.error = StoreUnavailable(f"the store cannot be written: {self.trouble}")

    def _conclude(self, database: Database, *, probes: bool) -> None:
        """Commit. `probes`: nobody writes, so write something to test the disk; a read would work on a full disk
        too."""
        writes = database.is_changed or probes
        if writes:
            self._attempted = self._commits + 1
            database.set_commits(self._attempted)
        database.commit()
        if writes:
            self._commits = self._attempted
            self._lock.note(self._commits)
            self.trouble = self.since = None
        self.keys.committed()

    def _fail(self, error: Exception) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.rollback()
        self.trouble = str(error) if isinstance(error, StoreError) else f"{self._database.path}: {error}"
        self.since = self.since or round(time.time(), 2)
        self.keys.rolled_back()
        if code_of(error) in GONE:
            self._close_files()

    def _close_files(self) -> None:
        """Close every file: a failed file system can only be mounted again when no file on it is open."""
        self._is_open = False
        with contextlib.suppress(sqlite3.Error):
            self.close()

    def _open_again_if_needed(self) -> None:
        """Make sure that the open file is the one in the folder, or open it again. It must be the same store: an older
        copy would bring back refresh tokens that were used up (law 3). Raises StoreError."""
        if self._is_open:
            if self._database.is_in_place:
                return
            self._close_files()
        path = self._folder / FILE
        elsewhere = StoreUnavailable(
            f"{path} was deleted or replaced while brokerd runs; put it back, or restart brokerd"
        )
        left = self._identity, self.keys.store
        if not path.exists() or self._identity_of(path.stat().st_ino) != self._identity:
            raise elsewhere
        try:
            self._lock = Lock(self._folder)
            self._database = opened(self._folder, create=False)
            self._attach()
            found = self._database.commits()
            if self.keys.store != left[1] or not self._commits <= found <= self._attempted:
                raise elsewhere
        except BaseException:
            self._identity, self.keys.store = left
            self._close_files()
            raise
        self._commits = self._attempted = found
        self._is_open = True


@dataclass(eq=False, slots=True)
class _Result:
    done: trio.Event = field(default_factory=trio.Event)
    value: Any = None
    error: Exception | None = None
