# The store as it lies, whether a daemon uses it or not: whether a key opens it. Takes no lock, writes nothing and
# leaves nothing behind; to work with it, it is opened by edge/store.py.
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from brokerd.core.envelope import EnvelopeError, unwrap
from brokerd.core.ports import StoreError
from brokerd.edge import schema
from brokerd.edge.database import FILE


@dataclass(frozen=True, slots=True)
class AtRest:
    """`keys`: its data keys, wrapped; `passphrase`: it is sealed with one."""

    store: str
    keys: tuple[tuple[int, bytes], ...]
    passphrase: bool

    def opens(self, kek: bytes) -> bool:
        try:
            for key_id, wrapped in self.keys:
                unwrap(wrapped, kek, self.store, key_id)
        except EnvelopeError:
            return False
        return True


def look(folder: Path) -> AtRest | None:
    """None: there is no store yet. Raises StoreError, PermissionError."""
    path = folder / FILE
    if not path.exists() or not path.stat().st_size:
        return None
    path.open("rb").close()  # SQLite does not say why it cannot
    try:
        with _connection(path) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if (usable_by := connection.execute("PRAGMA user_version").fetchone()[0]) > schema.VERSION:
                raise StoreError(f"{path} {schema.too_new(meta, usable_by)}")
            keys = tuple(connection.execute("SELECT id, wrapped FROM data_key ORDER BY id"))
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read ({error}); restore a copy of the state directory") from None
    return AtRest(str(meta.get("store", "")), keys, bool(meta.get("passphrase")))


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Where there is no log everything is in the file, which is then read without making one."""
    how = "mode=ro" if path.with_name(f"{FILE}-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)
    try:
        yield connection
    finally:
        connection.close()
