# The real store over a disk with faults: it is full, fails, is slow; a crash leaves the files as they were, and the
# last write torn where the power went in the middle of it.
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from brokerd.core.audit.chain import Memory
from brokerd.core.grant.record import Record
from brokerd.core.sealing import EnvelopeError, unwrap
from brokerd.edge.store.database import FILE, Database, Row
from brokerd.edge.store.sealed_meta import audit_memory
from brokerd.edge.store.sealed_record import open_row
from brokerd.edge.store.store import SqliteStore
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.keys_and_backups import Backup

if TYPE_CHECKING:
    from tests.stress.simulation.life import Life

T = TypeVar("T")
SECTOR = 512  # bytes that a disk writes whole or not at all
LATE = 0.3  # the share of the commits that fail and lie on the disk all the same: it was their sync that failed
FULL = 2  # PRAGMA synchronous: each commit is on the disk when it returns
TABLES = ("meta", "data_key", "record", "journal", "history", "breaker")


@dataclass
class Disk:
    """`full` until a true time; `failing`: after so many commits so many fail; `slow` until a true time."""

    full: float = -inf
    slow: float = -inf
    skip: int = 0
    failing: int = 0
    refusals: int = 0

    def refuses(self, now: float) -> bool:
        if self.failing and self.skip:
            self.skip -= 1
            return False
        refused = bool(self.failing) or now < self.full
        self.failing -= bool(self.failing)
        self.refusals += refused
        return refused


@dataclass(frozen=True)
class Files:
    """What lies on the disk: the database and its write-ahead log."""

    database: bytes
    log: bytes

    @staticmethod
    def read(folder: Path) -> Files:
        log = _log(folder)
        return Files((folder / FILE).read_bytes(), log.read_bytes() if log.exists() else b"")

    def write(self, folder: Path) -> None:
        """In place: a file that is another one is another machine's (law 15)."""
        with (folder / FILE).open("r+b" if (folder / FILE).exists() else "wb") as file:
            file.truncate()
            file.write(self.database)
        _log(folder).write_bytes(self.log)
        (folder / f"{FILE}-shm").unlink(missing_ok=True)

    def torn(self, before: Files, random: Random) -> Files:
        """These files as a disk has them that lost its power while it came here from `before`: of what was not synced
        any sectors were written, in any order, and the file may be shorter."""
        if self.database != before.database:
            return self  # the log was synced, and moved into the database afterwards
        log, old = bytearray(self.log), before.log.ljust(len(self.log), b"\0")
        changed = [at for at in range(0, len(log), SECTOR) if log[at : at + SECTOR] != old[at : at + SECTOR]]
        share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for at in changed:
            if random.random() >= share:
                log[at : at + SECTOR] = old[at : at + SECTOR]
        if changed and random.random() < 0.5:
            del log[max(len(before.log), random.randrange(changed[0], len(log) + 1)) :]
        return Files(self.database, bytes(log))

    def content(self, scratch: Path) -> list[object]:
        """What SQLite finds in them."""
        scratch.mkdir(exist_ok=True)
        self.write(scratch)
        connection = sqlite3.connect(scratch / FILE)
        try:
            return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES]
        finally:
            connection.close()


class SimStore(SqliteStore):
    """The real store; its work is done in the task itself, as slowly as the disk is, and a crash tears it."""

    def __init__(self, life: Life, folder: Path, machine: str, kek: bytes) -> None:
        """Raises WrongKey."""
        self._life = life
        self.running: list[Any] = []
        self._left: Files | None = None  # what a crash leaves, where that is not what the files are
        self._opened: dict[tuple[str, str], tuple[object, Record | None]] = {}  # each row as it was opened last
        self._synced: Files | None = None  # what a loss of power leaves, where commits are not synced
        pieces = life.world.systemd.next_process() if life.world.schedule.setup.holds else None
        super().__init__(folder, kek, machine, life.entropy, self._work, pieces=pieces)

    def _attach(self) -> None:
        super()._attach()
        self._really_commit = self._database.commit
        self._database.commit = self._commit_or_not  # type: ignore[method-assign]
        self._really_snapshot = self._database.snapshot
        self._database.snapshot = self._copied  # type: ignore[method-assign]

    async def do(self, work: Callable[[Database], T]) -> T:
        self._life.check()
        return await super().do(work)

    async def _work(self, work: Callable[[], None]) -> None:
        group = (getattr(work, "__defaults__", None) or ([],))[0]  # as Store.run binds it; other work has none
        self.running += group
        await self._life.pause(self._life.world.disk_delay())
        self._life.look()
        work()
        self._life.look()
        await self._life.point("after-commit")
        await self._life.pause(self._life.world.disk_delay())  # it is durable, and nobody knows yet
        self.running = [each for each in self.running if each not in group]

    def _commit_or_not(self) -> None:
        world = self._life.world
        self._life.point_now("before-commit")
        if world.disk.refuses(world.clock.true()):
            if world.torn.random() < LATE:
                self._really_commit()
                self._life.laws.committed(self._life)
            raise sqlite3.OperationalError("database or disk is full")
        if world.strikes("torn"):
            self._tear()
        run = self._database._connection.execute
        if self._synced is None and run("PRAGMA synchronous").fetchone()[0] < FULL:
            self._synced = Files.read(self._folder)
        self._really_commit()
        self._life.laws.committed(self._life)

    def _tear(self) -> None:
        """The power goes in the middle of a commit."""
        life, before = self._life, Files.read(self._folder)
        self._really_commit()
        after = Files.read(self._folder)
        self._left = after.torn(before, life.world.torn)
        scratch = self._folder / "scratch"
        old, new, found = (files.content(scratch) for files in (before, after, self._left))
        life.laws.hold("law 2: a torn write is there whole or not at all", found in (old, new), "it is there in part")
        if found == new:
            life.laws.committed(life)
        life.crash()
        raise Crashed

    def abandon(self, *, power: bool) -> None:
        """The process is gone: whoever waits for a write, shielded or not, is gone with it."""
        if power and self._left is None:
            self._left = self._synced
        for _, result in (*self.running, *self._pending):
            result.error = Crashed()  # type: ignore[assignment]
            result.done.set()

    def close(self) -> None:
        left = (self._left or Files.read(self._folder)) if self._life.dead else None
        super().close()
        if left is not None:  # SQLite tidies up when it closes a file, and a crash does not
            left.write(self._folder)

    def _copied(self) -> bytes:
        """A backup; the world remembers what was durable when it was taken, and the key that opens it."""
        content, keys = self._really_snapshot(), self._life.world.keys
        key = keys.present if self.opens(keys.present) else keys.previous
        self._life.world.copied[content] = Backup(content, key, dict(self._life.laws.durable))
        return content

    def records(self) -> dict[str, Record]:
        """What is durable."""
        rows = [(row.grant, self._record(row)) for row in self._database.rows()]
        return {grant: record for grant, record in rows if record is not None}

    def _record(self, row: Row) -> Record | None:
        """What is in a row; it is opened again only if it or the data keys have changed."""
        name, known = (row.grant, row.fingerprint), (row, self.keys._ring.ids)
        if name not in self._opened or self._opened[name][0] != known:
            self._opened[name] = known, open_row(self.keys, row).record
        return self._opened[name][1]

    def remembered(self) -> Memory:
        """What the store knows of the audit log."""
        found = audit_memory(self._database.meta, self.keys.unseal, self.keys.store)
        assert found is not None, "the store has the audit log's key from the start on"
        return found

    def held(self) -> dict[str, Record]:
        """What the disk did not take and systemd holds."""
        return {grant: each.record for (grant, _), each in self._unstored._kept.items()}

    def opens(self, kek: bytes) -> bool:
        """Whether anything can be opened with that key."""
        for key_id, wrapped, _ in self._database.data_keys():
            with contextlib.suppress(EnvelopeError):
                return bool(unwrap(wrapped, kek, self.keys.store, key_id))
        return False

    def journalled(self, grant: str) -> int | None:
        """The generation that the journal says is being spent."""
        run = self._database._connection.execute
        row = run("SELECT generation FROM journal WHERE name = ?", (grant,)).fetchone()
        return None if row is None else int(row[0])


def _log(folder: Path) -> Path:
    return folder / f"{FILE}-wal"
