# What is sealed in the store's table `meta`: the audit log's key and heads. Each value is bound to the store and to its
# name, and written as text. SEALED lists them all, for whoever seals everything anew.
from __future__ import annotations

import base64
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from brokerd.core.chain import Head, Memory
from brokerd.core.envelope import Bound, EnvelopeError, Keyring, unwrap
from brokerd.core.ports import StoreError
from brokerd.edge.data_keys import PASSPHRASE, DataKeys
from brokerd.edge.database import FILE, Database, glance
from brokerd.edge.entropy import SystemEntropy

AUDIT_KEY, AUDIT_HEADS = "audit_key", "audit_heads"
SEALED = (AUDIT_KEY, AUDIT_HEADS)
Unseal = Callable[[bytes, Bound], bytes]  # raises EnvelopeError


def put_sealed(database: Database, keys: DataKeys, name: str, plain: bytes) -> None:
    """Raises StoreUnavailable."""
    sealed = keys.seal(database, plain, _bound(keys.store, name))
    database.set_meta(name, base64.b64encode(sealed).decode())


def reseal(database: Database, keys: DataKeys) -> None:
    """Everything anew under the present data key; what cannot be opened stays as it is."""
    for name in SEALED:
        with contextlib.suppress(EnvelopeError):
            put_sealed(database, keys, name, _opened(database.meta(name), name, keys.unseal, keys.store))


def all_sealed(database: Database) -> list[bytes]:
    """What is sealed here, and can be: how its data keys are known to be in use."""
    found = []
    for name in SEALED:
        with contextlib.suppress(ValueError):
            found += [base64.b64decode(database.meta(name) or "", validate=True)]
    return [each for each in found if each]


def audit_memory(meta: Callable[[str], str | None], unseal: Unseal, store: str) -> Memory | None:
    """None: there is no key that could be opened, and nothing can be said of the log. Raises StoreUnavailable where the
    keys are locked."""
    try:
        key = _opened(meta(AUDIT_KEY), AUDIT_KEY, unseal, store)
    except EnvelopeError:
        return None
    try:
        plain = _opened(meta(AUDIT_HEADS), AUDIT_HEADS, unseal, store)
        return Memory(key, msgspec.msgpack.decode(plain, type=dict[str, Head]))
    except (EnvelopeError, msgspec.DecodeError):
        return Memory(key, None)


def passphrase_of(folder: Path) -> str:
    """How the key of a store that may be in use is derived of its passphrase. Raises StoreError."""
    try:
        return glance(folder)[0].get(PASSPHRASE, "")
    except sqlite3.Error as error:
        raise StoreError(f"{folder / FILE}: {error}") from None


def look(folder: Path, kek: bytes) -> Memory:
    """The same from outside, whether or not a daemon has the store open. Raises StoreError."""
    try:
        meta, keys = glance(folder)
        keyring, store = Keyring(SystemEntropy()), meta.get("store", "")
        for key_id, wrapped in keys:
            keyring.add(key_id, unwrap(wrapped, kek, store, key_id))
    except (sqlite3.Error, EnvelopeError) as error:
        raise StoreError(f"{folder / FILE}: {error}") from None
    found = audit_memory(meta.get, keyring.open, store)
    if found is None:
        raise StoreError(f"{folder / FILE}: it holds no key of an audit log that could be opened")
    return found


def _bound(store: str, name: str) -> Bound:
    """What the value of that name is bound to."""
    return Bound(store, name, 0, "meta")


def _opened(text: str | None, name: str, unseal: Unseal, store: str) -> bytes:
    """Raises EnvelopeError."""
    try:
        sealed = base64.b64decode(text or "", validate=True)
    except ValueError:
        raise EnvelopeError("it is not in a form that this version of brokerd seals") from None
    return unseal(sealed, _bound(store, name))
