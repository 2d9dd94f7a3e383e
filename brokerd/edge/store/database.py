# The SQLite file: pragmas, and one small method for each statement. Blocking, used by one thread at a time; it sees
# sealed bytes only.
from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from brokerd import __version__
from brokerd.core.ports import GenerationConflict, StoreError, StoreUnavailable
from brokerd.core.sealing import HEADER_BYTES
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment
from brokerd.edge.store import schema

WAL_PAGES = 1000  # checkpoint at 4 MiB, so that the log stays bounded
WAL_BYTES = 4 * 1024 * 1024  # what is left of it after a checkpoint, at most
FILE = "brokerd.db"
COMMITS = "commits"
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})  # waiting does not help
GONE = DAMAGE | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}  # open the file again


@dataclass(frozen=True, slots=True)
class Row:
    """A record in the file. `attempt`: when an exchange sent the token of this generation, if the journal has a row.
    `history`: how its last exchanges ended (core/grant/history.py)."""

    grant: str
    fingerprint: str
    generation: int
    sealed: bytes
    dormant_since: float | None
    attempt: Moment | None
    history: bytes


class Database:
    """An open database. `begin` and `commit` make several statements one transaction."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        """Without `create` the file must exist. Raises sqlite3.Error, StoreError."""
        self.path = folder / FILE
        there = self.path.exists() and self.path.stat().st_size > 0
        if not (there or create):
            raise StoreUnavailable(f"{self.path} is gone")
        self.is_new = not (there and self._holds_ours())
        self._connection = self._connect("rwc" if create else "rw")
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        # An attacker may have replaced sealed bytes by text: that must be found as damage, and not raise here.
        connection.text_factory = lambda data: data.decode(errors="replace")
        connection.execute("PRAGMA busy_timeout=5000")
        return connection

    def _holds_ours(self) -> bool:
        """Whether it has brokerd's tables. The connection only reads: at its end, one that may write would delete the
        log of a damaged database. Raises StoreError."""
        with contextlib.closing(self._connect("ro")) as connection:
            run = connection.execute
            version, ours = run("PRAGMA user_version").fetchone()[0], run("PRAGMA application_id").fetchone()[0]
            if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return False
            if ours != schema.APPLICATION_ID:
                raise StoreError(f"{self.path} is a database, and not one of brokerd's; move it away")
            if version > schema.VERSION:
                meta = dict(run("SELECT key, value FROM meta"))
                raise StoreError(f"{self.path} {schema.too_new(meta, version)}")
            if (trouble := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise StoreError(f"{self.path} is damaged ({trouble}); restore a copy of the state directory")
            return True

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA secure_delete=ON")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        run(f"PRAGMA journal_size_limit={WAL_BYTES}")
        if self.is_new:
            first = {"store": secrets.token_hex(16), schema.SCHEMA: schema.VERSION, schema.RELEASE: __version__}
            rows = "; ".join(f"INSERT INTO meta VALUES ('{key}', '{value}')" for key, value in first.items())  # noqa: S608 - words of our own
            self._connection.executescript(f"BEGIN IMMEDIATE; {schema.whole()}; {rows}; COMMIT")
        # What an earlier process wrote without a sync may be in the kernel's cache only: write it to the disk.
        if run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise StoreUnavailable(f"{self.path} is in use by another program")
        self._place = self._where()
        self._changes = 0

    def close(self) -> None:
        self._connection.close()

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._changes = self._connection.total_changes

    @property
    def is_changed(self) -> bool:
        """Whether something was written since `begin`."""
        return self._connection.total_changes != self._changes

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @property
    def inode(self) -> int:
        return self._place[0][1]

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to the open file. SQLite goes on writing to a deleted file, and that is lost."""
        try:
            return self._where() == self._place
        except OSError:
            return False

    def _where(self) -> tuple[tuple[int, int], ...]:
        """Device and inode of the file and of its log."""
        found = (self.path.stat(), self.path.with_name(f"{FILE}-wal").stat())
        return tuple((each.st_dev, each.st_ino) for each in found)

    def snapshot(self) -> bytes:
        """The whole file after the last commit, with the content of the log."""
        return self._connection.serialize()

    # -- meta and keys

    def meta(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def metas(self, prefix: str) -> dict[str, str]:
        """All whose key begins so."""
        found = self._connection.execute(
            "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
        )
        return dict(found)

    def drop_meta(self, key: str) -> None:
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))

    def schema(self) -> int:
        """The file's schema, which may be that of the next release."""
        return int(self.meta(schema.SCHEMA) or 1)

    def change_schema(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._connection.execute(statement)

    def commits(self) -> int:
        """How many transactions have changed the store."""
        return int(self.meta(COMMITS) or 0)

    def set_commits(self, number: int) -> None:
        self.set_meta(COMMITS, str(number))

    def data_keys(self) -> list[tuple[int, bytes, int]]:
        """(id, wrapped key, seals reserved), oldest first."""
        return self._connection.execute("SELECT id, wrapped, seals FROM data_key ORDER BY id").fetchall()

    def add_data_key(self, key_id: int, wrapped: bytes) -> None:
        self._connection.execute("INSERT INTO data_key VALUES (?, ?, 0)", (key_id, wrapped))

    def reserve_seals(self, key_id: int, seals: int) -> None:
        self._connection.execute("UPDATE data_key SET seals = seals + ? WHERE id = ?", (seals, key_id))

    def set_wrapped(self, key_id: int, wrapped: bytes) -> None:
        self._connection.execute("UPDATE data_key SET wrapped = ? WHERE id = ?", (wrapped, key_id))

    def delete_data_key(self, key_id: int) -> None:
        self._connection.execute("DELETE FROM data_key WHERE id = ?", (key_id,))

    def headers(self) -> list[bytes]:
        """The different headers of everything that is sealed, also if it was replaced by text: they name the data
        key."""
        found = self._connection.execute(
            f"SELECT substr(CAST(sealed AS BLOB), 1, {HEADER_BYTES}) FROM record"  # noqa: S608 - a number of our own
            f" UNION SELECT substr(CAST(sealed AS BLOB), 1, {HEADER_BYTES}) FROM metadata"
        )
        return [header for (header,) in found]

    def rows_after(self, place: tuple[str, str], number: int) -> list[tuple[str, str, int, bytes]]:
        """(grant, fingerprint, generation, sealed) of the next records in the order of the table."""
        return self._connection.execute(
            "SELECT name, fingerprint, generation, sealed FROM record WHERE (name, fingerprint) > (?, ?)"
            " ORDER BY name, fingerprint LIMIT ?",
            (*place, number),
        ).fetchall()

    def put_resealed(self, grant: str, fingerprint: str, sealed: bytes) -> None:
        """Write the same record under another data key. The journal and `dormant_since` do not change."""
        self._connection.execute(
            "UPDATE record SET sealed = ? WHERE name = ? AND fingerprint = ?", (sealed, grant, fingerprint)
        )

    def resealing(self) -> tuple[int, float] | None:
        """An unfinished rotation (key rotate --full): the data key under which it seals, and when it began."""
        found: tuple[int, float] | None = self._connection.execute("SELECT data_key, since FROM resealing").fetchone()
        return found

    def begin_resealing(self, data_key: int, since: float) -> None:
        self.end_resealing()
        self._connection.execute("INSERT INTO resealing (data_key, since) VALUES (?, ?)", (data_key, since))

    def end_resealing(self) -> None:
        self._connection.execute("DELETE FROM resealing")

    def checkpoint(self) -> None:
        """Empty the log, so that nothing overwritten stays in it."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    # -- records and the journal

    def rows(self, grant: str | None = None) -> list[Row]:
        """All records, or those of one grant, newest first."""
        return list(self.each_row(grant))

    def each_row(self, grant: str | None = None) -> Iterator[Row]:
        """The same, one by one: a hundred thousand at once would need much memory."""
        found = self._connection.execute(
            "SELECT r.name, r.fingerprint, r.generation, r.sealed, r.dormant_since, j.wall, j.boot, j.boot_id,"
            " CAST(coalesce(h.packed, '') AS BLOB) FROM record r LEFT JOIN journal j"
            " ON j.name = r.name AND j.fingerprint = r.fingerprint AND j.generation = r.generation"
            " LEFT JOIN history h ON h.name = r.name AND h.fingerprint = r.fingerprint"
            " WHERE ?1 IS NULL OR r.name = ?1 ORDER BY r.name, r.dormant_since IS NOT NULL, r.dormant_since DESC",
            (grant,),
        )
        for name, print_, generation, sealed, since, wall, boot, boot_id, packed in found:
            attempt = None if wall is None else _attempt(wall, boot, boot_id)
            yield Row(name, print_, generation, sealed, since, attempt, packed)

    def put_attempt(self, grant: str, fingerprint: str, generation: int, at: Moment) -> None:
        """Journal that an exchange is about to send the token of that generation; a row of that generation stays, for
        the first one may have used it up. An untrusted wall time is written as a negative number: after a reboot the
        provider's grace is not counted from it (laws 3 and 8)."""
        self._connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET generation = excluded.generation,"
            " wall = excluded.wall, boot = excluded.boot, boot_id = excluded.boot_id"
            " WHERE journal.generation != excluded.generation",
            (grant, fingerprint, generation, at.wall if at.trusted else -at.wall, at.boot, at.boot_id),
        )

    def put_record(self, grant: str, fingerprint: str, generation: int, sealed: bytes, replaces: int | None) -> None:
        """Write a record over generation `replaces` (None: there must be none). Raises GenerationConflict."""
        stored = self._connection.execute(
            "SELECT generation FROM record WHERE name = ? AND fingerprint = ?", (grant, fingerprint)
        ).fetchone()
        if (stored[0] if stored else None) != replaces:
            found = f"generation {stored[0]}" if stored else "nothing"
            expected = "nothing" if replaces is None else f"generation {replaces}"
            raise GenerationConflict(f"{grant}: the store holds {found} where {expected} was to be replaced")
        self.put_copy(grant, fingerprint, generation, sealed)

    def put_copy(self, grant: str, fingerprint: str, generation: int, sealed: bytes) -> None:
        """Write a record over whatever is there."""
        self._connection.execute(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, NULL)", (grant, fingerprint, generation, sealed)
        )

    def put_history(self, grant: str, fingerprint: str, packed: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO history VALUES (?, ?, ?)", (grant, fingerprint, packed))

    def end_attempt(self, grant: str, fingerprint: str) -> None:
        self._connection.execute("DELETE FROM journal WHERE name = ? AND fingerprint = ?", (grant, fingerprint))

    def set_dormant(self, places: Iterable[tuple[str, str]], since: float | None) -> None:
        self._connection.executemany(
            "UPDATE record SET dormant_since = ? WHERE name = ? AND fingerprint = ?",
            [(since, *place) for place in places],
        )

    def delete(self, grant: str, fingerprint: str | None = None) -> int:
        """Delete a grant's records, or the one with that fingerprint. Returns how many there were."""
        where, values = "name = ?1 AND (?2 IS NULL OR fingerprint = ?2)", (grant, fingerprint)
        for table in ("journal", "history"):
            self._connection.execute(f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608 - constant text
        return self._connection.execute(f"DELETE FROM record WHERE {where}", values).rowcount  # noqa: S608

    # -- breakers

    def breakers(self) -> dict[str, Breaker]:
        found = self._connection.execute("SELECT provider, failures, wall, boot, boot_id FROM breaker")
        return {p: Breaker(n, None if wall is None else Moment(wall, *rest)) for p, n, wall, *rest in found}

    def put_breaker(self, provider: str, breaker: Breaker) -> None:
        until = breaker.shut_until
        row = (until.wall, until.boot, until.boot_id) if until else (None, None, None)
        self._connection.execute(
            "INSERT OR REPLACE INTO breaker VALUES (?, ?, ?, ?, ?)", (provider, breaker.failures, *row)
        )

    # -- providers' metadata

    def metadata(self) -> list[tuple[str, bytes]]:
        return self._connection.execute("SELECT provider, sealed FROM metadata").fetchall()

    def put_metadata(self, provider: str, sealed: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?)", (provider, sealed))


def _attempt(wall: float, boot: float, boot_id: str) -> Moment:
    """A row of the journal; see `put_attempt`."""
    return Moment(abs(wall), boot, boot_id, trusted=wall >= 0)


def opened(folder: Path, *, create: bool) -> Database:
    """Opens the folder's database, or creates it, readable by its user only. Raises StoreError."""
    before = os.umask(0o077)
    try:
        return Database(folder, create=create)
    except sqlite3.Error as error:
        words = f"{folder}: the store cannot be opened: {error}"
        if code_of(error) in DAMAGE:
            raise StoreError(f"{words}; restore a copy of the state directory") from None
        raise StoreUnavailable(words) from None
    finally:
        os.umask(before)


def code_of(error: Exception) -> int:
    """SQLite's primary result code; 0 for other errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
