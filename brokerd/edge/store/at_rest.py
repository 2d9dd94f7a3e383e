# Reads the file of a store, also beside a running daemon, to see whether a key opens it. Takes no lock and writes
# nothing. store.py opens a store to work with it.
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from brokerd.core.ports import StoreError
from brokerd.core.sealing import EnvelopeError, unwrap
from brokerd.edge.store import schema
from brokerd.edge.store.database import FILE


@dataclass(frozen=True, slots=True)
class AtRest:
    """A store's table `meta`, and its data keys by id, wrapped."""

    meta: Mapping[str, str]
    keys: Mapping[int, bytes]

    @property
    def store(self) -> str:
        """The store's id."""
        return self.meta.get("store", "")

    @property
    def passphrase(self) -> str:
        """How the key is derived from a passphrase; "" if it is not."""
        return self.meta.get("passphrase", "")

    def unwrapped(self, kek: bytes) -> dict[int, bytes]:
        """The data keys. Raises EnvelopeError."""
        return {key_id: unwrap(wrapped, kek, self.store, key_id) for key_id, wrapped in self.keys.items()}

    def opens(self, kek: bytes) -> bool:
        try:
            self.unwrapped(kek)
        except EnvelopeError:
            return False
        return True


def look(folder: Path) -> AtRest | None:
    """None: there is no store yet. Raises StoreError, PermissionError."""
    path = folder / FILE
    if not path.exists() or not path.stat().st_size:
        return None
    path.open("rb").close()  # its error says why; SQLite's would not
    try:
        with _connection(path) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if (usable_by := connection.execute("PRAGMA user_version").fetchone()[0]) > schema.VERSION:
                raise StoreError(f"{path} {schema.too_new(meta, usable_by)}")
            return AtRest(meta, dict(connection.execute("SELECT id, wrapped FROM data_key ORDER BY id")))
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read ({error}); restore a copy of the state directory") from None


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Reads only. Without a log everything is in the file, and `immutable` makes no log."""
    how = "mode=ro" if path.with_name(f"{FILE}-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)
    try:
        yield connection
    finally:
        connection.close()
