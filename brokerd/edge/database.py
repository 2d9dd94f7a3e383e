# The SQLite file: pragmas, and one small function for each thing that is written or read.
# Synchronous, used by one thread at a time; it sees sealed bytes only.
from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from brokerd import __version__
from brokerd.core.breaker import Breaker
from brokerd.core.envelope import HEADER_BYTES
from brokerd.core.moment import Moment
from brokerd.core.ports import GenerationConflict, StoreError, StoreUnavailable
from brokerd.edge import schema

WAL_PAGES = 1000  # checkpoint at 4 MiB, so that the log stays bounded
WAL_BYTES = 4 * 1024 * 1024  # what is left of it after a checkpoint, at most
FILE = "brokerd.db"
COMMITS = "commits"


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it lies in the file, with the journal's row of its grant if that speaks of this generation."""

    grant: str
    fingerprint: str
    generation: int
    sealed: bytes
    dormant_since: float | None
    attempt: Moment | None


class Database:
    """An open store. Every method is one statement or a few; `transaction` makes them one."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        """Without `create` there has to be one. Raises sqlite3.Error, StoreError."""
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
        # What should be sealed bytes may have been made text by who tampers: it is to be found wrong, not to end us.
        connection.text_factory = lambda data: data.decode(errors="replace")
        connection.execute("PRAGMA busy_timeout=5000")
        return connection

    def _holds_ours(self) -> bool:
        """Whether it has our tables; raises StoreError where it is not ours to open. By a connection that only reads:
        one that may write would, at its end, delete the log of a database that it could not make sense of."""
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
        # What a process before us wrote and could not sync may be in the kernel's cache alone. This writes it for good.
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
        """SQLite writes happily into files that were deleted: what it commits there is lost."""
        try:
            return self._where() == self._place
        except OSError:
            return False

    def _where(self) -> tuple[tuple[int, int], ...]:
        """Device and inode of the file and of its log."""
        found = (self.path.stat(), self.path.with_name(f"{FILE}-wal").stat())
        return tuple((each.st_dev, each.st_ino) for each in found)

    def snapshot(self) -> bytes:
        """The whole file as of the last commit, what lies in the log included."""
        return self._connection.serialize()

    # -- meta and keys

    def meta(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def schema(self) -> int:
        """The one that the file has, which may be that of the next release."""
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
        """The first bytes of whatever is sealed, each once, also where it was made text: they say under which data
        key."""
        found = self._connection.execute(
            f"SELECT substr(CAST(sealed AS BLOB), 1, {HEADER_BYTES}) FROM record"  # noqa: S608 - a number of our own
            f" UNION SELECT substr(CAST(sealed AS BLOB), 1, {HEADER_BYTES}) FROM metadata"
        )
        return [header for (header,) in found]

    def rows_after(self, place: tuple[str, str], number: int) -> list[tuple[str, str, int, bytes]]:
        """(grant, fingerprint, generation, sealed) of the next records in the table's own order."""
        return self._connection.execute(
            "SELECT name, fingerprint, generation, sealed FROM record WHERE (name, fingerprint) > (?, ?)"
            " ORDER BY name, fingerprint LIMIT ?",
            (*place, number),
        ).fetchall()

    def put_resealed(self, grant: str, fingerprint: str, sealed: bytes) -> None:
        """The same record under another data key; its journal and its sleep stay as they are."""
        self._connection.execute(
            "UPDATE record SET sealed = ? WHERE name = ? AND fingerprint = ?", (sealed, grant, fingerprint)
        )

    def resealing(self) -> tuple[int, float] | None:
        """Under which data key everything is being sealed anew, and since when, until that has come to its end."""
        found: tuple[int, float] | None = self._connection.execute("SELECT data_key, since FROM resealing").fetchone()
        return found

    def begin_resealing(self, data_key: int, since: float) -> None:
        self.end_resealing()
        self._connection.execute("INSERT INTO resealing (data_key, since) VALUES (?, ?)", (data_key, since))

    def end_resealing(self) -> None:
        self._connection.execute("DELETE FROM resealing")

    def checkpoint(self) -> None:
        """Leave nothing of what was overwritten in the log."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    # -- records and the journal

    def rows(self, grant: str | None = None) -> list[Row]:
        """All records, or those of one grant, newest first."""
        found = self._connection.execute(
            "SELECT r.name, r.fingerprint, r.generation, r.sealed, r.dormant_since, j.wall, j.boot, j.boot_id"
            " FROM record r LEFT JOIN journal j"
            " ON j.name = r.name AND j.fingerprint = r.fingerprint AND j.generation = r.generation"
            " WHERE ?1 IS NULL OR r.name = ?1 ORDER BY r.name, r.dormant_since IS NOT NULL, r.dormant_since DESC",
            (grant,),
        )
        return [
            Row(name, fingerprint, generation, sealed, since, None if wall is None else _attempt(wall, boot, boot_id))
            for name, fingerprint, generation, sealed, since, wall, boot, boot_id in found
        ]

    def put_attempt(self, grant: str, fingerprint: str, generation: int, at: Moment) -> None:
        """Journal an exchange that is about to spend that generation's token. A wall clock that is not trusted is
        written as a negative number: the provider's grace is not counted from it in another boot (laws 3 and 8)."""
        self._connection.execute(
            "INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?, ?, ?)",
            (grant, fingerprint, generation, at.wall if at.trusted else -at.wall, at.boot, at.boot_id),
        )

    def put_record(self, grant: str, fingerprint: str, generation: int, sealed: bytes, replaces: int | None) -> None:
        """Write a record in the place of generation `replaces` (None: there must be none).
        Raises GenerationConflict."""
        held = self._connection.execute(
            "SELECT generation FROM record WHERE name = ? AND fingerprint = ?", (grant, fingerprint)
        ).fetchone()
        if (held[0] if held else None) != replaces:
            found = f"generation {held[0]}" if held else "nothing"
            wanted = "nothing" if replaces is None else f"generation {replaces}"
            raise GenerationConflict(f"{grant}: the store holds {found} where {wanted} was to be replaced")
        self._connection.execute(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, NULL)", (grant, fingerprint, generation, sealed)
        )

    def end_attempt(self, grant: str, fingerprint: str) -> None:
        self._connection.execute("DELETE FROM journal WHERE name = ? AND fingerprint = ?", (grant, fingerprint))

    def set_dormant(self, grant: str, fingerprint: str, since: float | None) -> None:
        self._connection.execute(
            "UPDATE record SET dormant_since = ? WHERE name = ? AND fingerprint = ?", (since, grant, fingerprint)
        )

    def delete(self, grant: str, fingerprint: str | None = None) -> int:
        """Delete a grant's records, or the one with that fingerprint; how many there were."""
        where, values = "name = ?1 AND (?2 IS NULL OR fingerprint = ?2)", (grant, fingerprint)
        self._connection.execute(f"DELETE FROM journal WHERE {where}", values)  # noqa: S608 - constant text
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

    # -- what providers said of themselves, sealed

    def metadata(self) -> list[tuple[str, bytes]]:
        return self._connection.execute("SELECT provider, sealed FROM metadata").fetchall()

    def put_metadata(self, provider: str, sealed: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?)", (provider, sealed))


def glance(folder: Path) -> tuple[dict[str, str], list[tuple[int, bytes]]]:
    """The table `meta` and the wrapped data keys, by a connection that only reads: also beside a running daemon.
    Raises sqlite3.Error."""
    uri = f"file:{quote(str(folder / FILE))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        return (
            dict(connection.execute("SELECT key, value FROM meta")),
            connection.execute("SELECT id, wrapped FROM data_key").fetchall(),
        )


def _attempt(wall: float, boot: float, boot_id: str) -> Moment:
    """A row of the journal; see `put_attempt`."""
    return Moment(abs(wall), boot, boot_id, trusted=wall >= 0)
