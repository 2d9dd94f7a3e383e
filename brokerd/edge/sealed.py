# What is sealed in the store's table `meta`: the audit log's key and heads. Each value is bound to the store and to its
# name, and written as text. SEALED lists them all, for whoever seals everything anew.
from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from brokerd.core.chain import Head, Memory
from brokerd.core.envelope import Bound, EnvelopeError, Keyring, unwrap
from brokerd.core.ports import StoreError
from brokerd.edge.database import FILE, glance
from brokerd.edge.entropy import SystemEntropy

AUDIT_KEY, AUDIT_HEADS = "audit_key", "audit_heads"
SEALED = (AUDIT_KEY, AUDIT_HEADS)


def bound(store: str, name: str) -> Bound:
    """What the value of that name is bound to."""
    return Bound(store, name, 0, "meta")


def as_text(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()


def opened(text: str, name: str, keyring: Keyring, store: str) -> bytes:
    """Raises EnvelopeError."""
    try:
        sealed = base64.b64decode(text, validate=True)
    except ValueError:
        raise EnvelopeError("it is not in a form that this version of brokerd seals") from None
    return keyring.open(sealed, bound(store, name))


def audit_memory(meta: Callable[[str], str | None], keyring: Keyring, store: str) -> Memory | None:
    """None: there is no key that could be opened, and nothing can be said of the log. Heads that cannot be opened are
    as good as none."""
    try:
        key = opened(meta(AUDIT_KEY) or "", AUDIT_KEY, keyring, store)
    except EnvelopeError:
        return None
    try:
        plain = opened(meta(AUDIT_HEADS) or "", AUDIT_HEADS, keyring, store)
        return Memory(key, msgspec.msgpack.decode(plain, type=dict[str, Head]))
    except (EnvelopeError, msgspec.DecodeError):
        return Memory(key, {})


def look(folder: Path, kek: bytes) -> Memory:
    """The same from outside, whether or not a daemon has the store open. Raises StoreError."""
    try:
        meta, keys = glance(folder)
        keyring, store = Keyring(SystemEntropy()), meta.get("store", "")
        for key_id, wrapped in keys:
            keyring.add(key_id, unwrap(wrapped, kek, store, key_id))
    except (sqlite3.Error, EnvelopeError) as error:
        raise StoreError(f"{folder / FILE}: {error}") from None
    found = audit_memory(meta.get, keyring, store)
    if found is None:
        raise StoreError(f"{folder / FILE}: it holds no key of an audit log that could be opened")
    return found
