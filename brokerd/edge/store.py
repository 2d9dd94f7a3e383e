# The store as the broker uses it: records sealed and opened, writes grouped into one transaction, one thread of its
# own. What is in the file is edge/database.py's matter; what is in a record is core's.
from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from brokerd.core.breaker import Breaker
from brokerd.core.chain import Head, Memory
from brokerd.core.envelope import KEY_BYTES, EnvelopeError
from brokerd.core.metadata import Metadata
from brokerd.core.moment import Moment
from brokerd.core.ports import Entropy, StoreError, StoreUnavailable
from brokerd.core.record import Record
from brokerd.edge import resealing
from brokerd.edge.data_keys import DataKeys
from brokerd.edge.database import FILE, Database
from brokerd.edge.lock import Lock
from brokerd.edge.migration import Progress, discard_copies, migrated
from brokerd.edge.resealing import bound_metadata
from brokerd.edge.sealed import AUDIT_HEADS, AUDIT_KEY, audit_memory, put_sealed
from brokerd.edge.sealed_record import Stored, open_row, seal
from brokerd.edge.unstored import Pieces, Unstored

T = TypeVar("T")
Work = Callable[[Database], Any]
PROBE = 2.0  # seconds between looks whether the disk is back, where nobody else writes
OLDER = "older"  # in the place of the machine: the store is behind what its directory has seen
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})  # no time mends these
GONE = DAMAGE | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}  # the connection is no good


async def in_thread(work: Callable[[], T]) -> T:
    """Runs the store's work in its own thread, one at a time (law 13)."""
    return await trio.to_thread.run_sync(work, limiter=_thread)


_thread = trio.CapacityLimiter(1)


class Store:
    """An open store. `run` has to be running for the asynchronous methods to make progress.

    `runner` runs the synchronous work: a thread, or in simulations the task itself.
    """

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
        the present schema. Blocking. Raises StoreError, WrongKey: nothing was changed then."""
        self._folder, self._machine = folder, machine
        self._keys, self._entropy = DataKeys(entropy), entropy
        self._unstored = Unstored(pieces, self._keys)
        self._runner = runner
        self._lock = Lock(folder)
        try:
            self._database = _opened(folder, create=not self._lock.seen)
        except StoreUnavailable as error:
            self._lock.release()
            if (folder / FILE).exists() or not self._lock.seen:
                raise
            words = f"put it back; or delete {folder}/lock to begin with nothing: revoked grants come to life then"
            raise StoreUnavailable(f"{error}; {words}") from None
        except BaseException:
            self._lock.release()
            raise
        try:
            self._attach()
            if kek is not None:
                self._keys.open(self._database, kek)
                self._keys.committed()
            self.is_new = self._database.is_new
            self.migration = migrated(self._database, progress)
            unfinished = self._database.resealing()
            self.resealing_since = unfinished and unfinished[1]  # key rotate --full, until it has come to its end
            self._commits = self._attempted = self._database.commits()
            if self._commits < self._lock.seen:  # it was put back, or has lost its log
                self._database.set_meta("machine", OLDER)
            elif self._database.meta("machine") is None:
                self._database.set_meta("machine", self._identity)
            self._lock.note(self._commits)
            self.adopted = self._database.meta("machine") == self._identity
        except BaseException:
            self.close()
            raise
        self._is_open = True
        self._pending: list[tuple[Work, _Result]] = []
        self._wake = trio.Event()
        self.trouble: str | None = None  # what is wrong with the disk, for status
        self.since: float | None = None  # when that began, in Unix seconds
        self.noticed: Callable[[], None] = lambda: None  # is called when `trouble` has changed

    def _attach(self) -> None:
        """Know the database that is open: its identity and its keys."""
        self._identity = self._identity_of(self._database.inode)
        self._keys.attach(self._database)

    def _identity_of(self, inode: int) -> str:
        return f"{self._machine} {inode}"

    # -- synchronous, for the start

    def all(self) -> list[Stored]:
        """Every record. What the process before could not store is stored now, if it can be. Blocking."""
        rows = self._database.rows()
        found = {(row.grant, row.fingerprint): open_row(self._keys, row) for row in rows}
        for piece, record in self._unstored.taken({(row.grant, row.fingerprint): row.generation for row in rows}):
            place, result = (piece.grant, piece.fingerprint), _Result()
            self._group([(self._writing(record, piece.fingerprint, piece.replaces, concludes=False), result)])
            if stored := result.error is None:
                self._unstored.drop(*place)
            since = found[place].dormant_since if place in found else None
            found[place] = Stored(*place, record, since, recovered=True, unstored=not stored, replaces=piece.replaces)
        return list(found.values())

    def breakers(self) -> dict[str, Breaker]:
        return self._database.breakers()

    def metadata(self) -> dict[str, Metadata]:
        """What providers said of themselves; what cannot be opened is learnt anew."""
        found = {}
        for provider, sealed in self._database.metadata():
            with contextlib.suppress(EnvelopeError, msgspec.DecodeError):
                plain = self._keys.unseal(sealed, bound_metadata(self._keys.store, provider))
                found[provider] = msgspec.msgpack.decode(plain, type=Metadata)
        return found

    @property
    def path(self) -> Path:
        return self._database.path

    def close(self) -> None:
        """Lets go of every file, so that the disk can be unmounted."""
        self._database.close()
        self._lock.release()

    # -- asynchronous

    async def run(self) -> None:
        """Does the work that was asked for: all that is waiting becomes one transaction and one sync. While the disk
        is in trouble it looks by itself whether it is back."""
        while True:
            with trio.move_on_after(PROBE if self.trouble else math.inf):
                await self._wake.wait()
            self._wake = trio.Event()
            before = self.trouble
            group, self._pending = self._pending, []
            with trio.CancelScope(shield=True):
                await self._runner(lambda group=group: self._group(group))  # type: ignore[misc]
            if self.trouble != before:
                self.noticed()
            for _, result in group:
                result.done.set()

    async def read(self, grant: str) -> list[Stored]:
        """The records of one grant as the store has them now, the active one first."""
        return await self._do(lambda database: [open_row(self._keys, row) for row in database.rows(grant)])

    async def dormant(self) -> list[Stored]:
        """The records of grants that the configuration does not name any more."""
        rows = await self._do(lambda database: [row for row in database.rows() if row.dormant_since is not None])
        return [open_row(self._keys, row) for row in rows]

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment) -> None:
        """Journal, durably, that this generation's token is about to be sent (law 2). Raises StoreUnavailable."""
        await self._do(lambda database: database.put_attempt(grant, fingerprint, generation, at))

    async def write(self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool) -> None:
        """Write a record in the place of generation `replaces`; where it `concludes` an exchange, the journal's row
        goes with the same transaction. Durable when it returns. Raises GenerationConflict, StoreUnavailable."""

        try:
            await self._do(self._writing(record, fingerprint, replaces, concludes=concludes))
        except StoreUnavailable:
            if self._unstored.is_possible:
                with trio.CancelScope(shield=True):
                    await self._runner(lambda: self._unstored.keep(record, fingerprint, replaces))
            raise
        self._unstored.drop(record.name, fingerprint)

    def _writing(self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool) -> Work:
        def work(database: Database) -> None:
            sealed = seal(database, self._keys, record, fingerprint)
            database.put_record(record.name, fingerprint, record.generation, sealed, replaces)
            if concludes:
                database.end_attempt(record.name, fingerprint)

        return work

    def outlives_us(self, grant: str, fingerprint: str) -> bool:
        """Whether what the disk did not take of it is held by the service manager, until that stops the service."""
        return self._unstored.holds(grant, fingerprint)

    async def set_dormant(self, records: Iterable[tuple[str, str]], since: float | None) -> None:
        """Grants that vanished from the configuration lie dormant; `since` None wakes them."""
        pairs = list(records)

        def work(database: Database) -> None:
            for grant, fingerprint in pairs:
                database.set_dormant(grant, fingerprint, since)

        await self._do(work)

    async def forget(self, grant: str, fingerprint: str | None = None) -> int:
        """Delete a grant's records (those with that fingerprint); how many there were."""
        number = await self._do(lambda database: database.delete(grant, fingerprint))
        self._unstored.drop(grant, fingerprint)
        return number

    async def write_breaker(self, provider: str, breaker: Breaker) -> None:
        await self._do(lambda database: database.put_breaker(provider, breaker))

    async def write_metadata(self, provider: str, metadata: Metadata) -> None:
        """Sealed: who could write it could have credentials sent elsewhere."""

        def work(database: Database) -> None:
            plain = msgspec.msgpack.encode(metadata)
            database.put_metadata(
                provider, self._keys.seal(database, plain, bound_metadata(self._keys.store, provider))
            )

        await self._do(work)

    async def audit_memory(self) -> Memory:
        """The audit log's key, made where there is none, and its heads. Raises StoreUnavailable."""

        def work(database: Database) -> Memory:
            found = audit_memory(database.meta, self._keys.unseal, self._keys.store)
            if found is None:
                found = Memory(self._entropy.bytes(KEY_BYTES), {})
                put_sealed(database, self._keys, AUDIT_KEY, found.key)
                put_sealed(database, self._keys, AUDIT_HEADS, msgspec.msgpack.encode({}))
            return found

        return await self._do(work)

    async def remember_audit(self, heads: Mapping[str, Head]) -> None:
        """How far the audit log goes: so a cut is noticed. Raises StoreUnavailable."""
        plain = msgspec.msgpack.encode(heads)
        await self._do(lambda database: put_sealed(database, self._keys, AUDIT_HEADS, plain))

    async def adopt(self) -> None:
        """This machine and this file are the store's from now on."""
        await self._do(lambda database: database.set_meta("machine", self._identity))
        self.adopted = True

    async def snapshot(self) -> bytes:
        """A copy of the whole store as it is between two transactions. Raises StoreUnavailable."""
        taken: list[bytes] = []
        try:
            await self._runner(lambda: taken.append(self._database.snapshot()))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: the store cannot be read: {error}") from None
        return taken[0]

    # -- keys

    @property
    def is_locked(self) -> bool:
        return not self._keys.is_open

    @property
    def passphrase(self) -> str:
        """How the key is derived of a passphrase; "" where it is not."""
        return self._keys.passphrase

    async def lock(self) -> None:
        """Let go of every key: nothing can be read or written that is sealed."""
        await self._runner(self._keys.close)

    async def unlock(self, kek: bytes, passphrase: str = "") -> None:
        """Raises WrongKey, StoreError, StoreUnavailable."""
        await self._do(lambda database: self._keys.open(database, kek, passphrase))

    async def rewrap(self, kek: bytes, passphrase: str = "") -> None:
        """Another key-encryption key, in one transaction (law 15). Raises StoreUnavailable."""
        await self._do(lambda database: self._keys.rewrap(database, kek, passphrase))

    def is_in_use(self, kek: bytes) -> bool:
        return self._keys.is_in_use(kek)

    async def reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]:
        """Seal everything anew under a new data key, in groups beside other writes, then delete the old ones. Whatever
        ends it in between, all data keys are there that anything is sealed under, and it `goes_on` later. Raises
        StoreUnavailable. Returns how many records there were, and how many of them could not be opened: their data
        keys stay."""
        since = round(time.time(), 2)
        if goes_on:
            begun = await self._do(resealing.begun)
            if begun is None:  # its last commit failed, and came to lie on the disk all the same
                self.resealing_since = None
                return 0, 0
            current = begun
        else:
            current = await self._do(lambda database: resealing.begin(database, self._keys, since))
            self.resealing_since = since
        await self._do(lambda database: resealing.all_but_records(database, self._keys))
        place, count, damaged = resealing.START, 0, 0

        def next_group(database: Database) -> list[tuple[resealing.Place, bool]]:
            return resealing.some_records(database, self._keys, current, place)

        while rows := await self._do(next_group):
            place, count, damaged = rows[-1][0], count + len(rows), damaged + sum(not is_well for _, is_well in rows)
        left = await self._do(lambda database: resealing.end(database, self._keys, current, self._unstored.sealed))
        self.resealing_since = None

        def forget() -> None:
            self._keys.retired(current, left)
            with contextlib.suppress(sqlite3.Error):
                self._database.checkpoint()
            discard_copies(self._folder)  # they can be opened with the old ones

        await self._runner(forget)
        return count, damaged

    async def _do(self, work: Callable[[Database], T]) -> T:
        """Raises StoreUnavailable, or what `work` raises."""
        result = _Result()
        self._pending.append((work, result))
        self._wake.set()
        with trio.CancelScope(shield=True):  # it happens in any case: better to know how it ended
            await result.done.wait()
        if result.error is not None:
            raise result.error
        return result.value  # type: ignore[no-any-return]

    def _group(self, group: list[tuple[Work, _Result]]) -> None:
        """In the thread: everything in one transaction. A work that refuses refuses before it changes anything, and
        costs the others nothing; a disk that refuses is every work's failure."""
        try:
            self._be_in_place()
            database = self._database
            database.begin()
            for work, result in group:
                try:
                    result.value = work(database)
                except StoreError as error:
                    result.error = error
                except (ValueError, TypeError) as error:  # it has no form that can be written: its writer's alone
                    result.error = StoreError(f"the record cannot be written: {type(error).__name__}")
            self._conclude(database, probes=not group)
        except Exception as error:
            known = isinstance(error, sqlite3.Error | OSError | StoreError)
            # A fault of ours must not end the one writer: whoever waits for it would wait for ever.
            self._fail(error if known else StoreError(f"a fault of brokerd's own in the store: {type(error).__name__}"))
            for _, result in group:
                result.error = StoreUnavailable(f"the store cannot be written: {self.trouble}")

    def _conclude(self, database: Database, *, probes: bool) -> None:
        """Reading works on a full disk, and proves nothing. `probes`: nobody writes, and a write is to be tried."""
        writes = database.is_changed or probes
        if writes:
            self._attempted = self._commits + 1
            database.set_commits(self._attempted)
        database.commit()
        if writes:
            self._commits = self._attempted
            self._lock.note(self._commits)
            self.trouble = self.since = None
        self._keys.committed()

    def _fail(self, error: Exception) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.rollback()
        self.trouble = str(error) if isinstance(error, StoreError) else f"{self._database.path}: {error}"
        self.since = self.since or round(time.time(), 2)
        self._keys.rolled_back()
        if _code(error) in GONE:
            self._let_go()

    def _let_go(self) -> None:
        """A file system that has failed is not mounted anew while somebody holds a file of it."""
        self._is_open = False
        with contextlib.suppress(sqlite3.Error):
            self.close()

    def _be_in_place(self) -> None:
        """That the open file lies where it should, or is opened again there. Raises StoreError.

        It has to be the very store that was left: an older one would bring back tokens that were used up (law 3).
        """
        if self._is_open:
            if self._database.is_in_place:
                return
            self._let_go()
        path = self._folder / FILE
        elsewhere = StoreUnavailable(
            f"{path} was deleted or replaced while brokerd runs; put it back, or restart brokerd"
        )
        left = self._identity, self._keys.store
        if not path.exists() or self._identity_of(path.stat().st_ino) != self._identity:
            raise elsewhere
        try:
            self._lock = Lock(self._folder)
            self._database = _opened(self._folder, create=False)
            self._attach()
            found = self._database.commits()
            if self._keys.store != left[1] or not self._commits <= found <= self._attempted:
                raise elsewhere
        except BaseException:
            self._identity, self._keys.store = left
            self._let_go()
            raise
        self._commits = self._attempted = found
        self._is_open = True


@dataclass(eq=False, slots=True)
class _Result:
    done: trio.Event
    value: Any = None
    error: Exception | None = None

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value = None
        self.error = None


def _opened(folder: Path, *, create: bool) -> Database:
    """Opens the folder's database, or creates it with nobody else's eyes on it. Raises StoreError."""
    before = os.umask(0o077)
    try:
        return Database(folder, create=create)
    except sqlite3.Error as error:
        words = f"{folder}: the store cannot be opened: {error}"
        if _code(error) in DAMAGE:
            raise StoreError(f"{words}; restore a copy of the state directory") from None
        raise StoreUnavailable(words) from None
    finally:
        os.umask(before)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where it is not SQLite's error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
