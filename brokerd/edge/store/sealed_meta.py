# The sealed values in the store's table `meta`: the audit log's key and heads. Each value is bound to the store and to
# its name, and written as text.
from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from brokerd.core.audit.chain import Head, Memory
from brokerd.core.ports import Entropy, StoreError
from brokerd.core.sealing import KEY_BYTES, Bound, EnvelopeError, Keyring
from brokerd.edge.store import at_rest
from brokerd.edge.store.data_keys import DataKeys
from brokerd.edge.store.database import FILE, Database
from brokerd.edge.system.entropy import SystemEntropy

AUDIT_KEY, AUDIT_HEADS, FLEET_KEYS = "audit_key", "audit_heads", "fleet_keys"
SEALED = (AUDIT_KEY, AUDIT_HEADS, FLEET_KEYS)  # all names: key rotate --full seals them under the new data key
Unseal = Callable[[bytes, Bound], bytes]  # raises EnvelopeError


def put_sealed(database: Database, keys: DataKeys, name: str, plain: bytes) -> None:
    """Raises StoreUnavailable."""
    sealed = keys.seal(database, plain, _bound(keys.store, name))
    database.set_meta(name, base64.b64encode(sealed).decode())


def reseal(database: Database, keys: DataKeys) -> None:
    """Seal all values under the present data key. What cannot be opened stays as it is."""
    for name in SEALED:
        with contextlib.suppress(EnvelopeError):
            put_sealed(database, keys, name, _opened(database.meta(name), name, keys.unseal, keys.store))


def sealed_value(database: Database, keys: DataKeys, name: str) -> bytes:
    """What `put_sealed` wrote. Raises EnvelopeError, StoreUnavailable."""
    return _opened(database.meta(name), name, keys.unseal, keys.store)


def all_sealed(database: Database) -> list[bytes]:
    """All sealed values: their data keys are in use."""
    found = []
    for name in SEALED:
        with contextlib.suppress(ValueError):
            found += [base64.b64decode(database.meta(name) or "", validate=True)]
    return [each for each in found if each]


def audit_memory(meta: Callable[[str], str | None], unseal: Unseal, store: str) -> Memory | None:
    """None: there is no key that can be opened, so nothing can be said about the log. Raises StoreUnavailable if the
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


def audit_memory_of(database: Database, keys: DataKeys, entropy: Entropy) -> Memory:
    """The audit log's key and heads, made if there is no key. Raises StoreUnavailable."""
    found = audit_memory(database.meta, keys.unseal, keys.store)
    if found is None:
        found = Memory(entropy.bytes(KEY_BYTES), {})
        put_sealed(database, keys, AUDIT_KEY, found.key)
        put_sealed(database, keys, AUDIT_HEADS, msgspec.msgpack.encode({}))
    return found


def passphrase_of(folder: Path) -> str:
    """How the store's key is derived from its passphrase; a daemon may be using the store. Raises StoreError."""
    return _at_rest(folder).passphrase


def look(folder: Path, kek: bytes) -> Memory:
    """The audit log's key and heads; a daemon may be using the store. Raises StoreError."""
    store, keyring = _at_rest(folder), Keyring(SystemEntropy())
    try:
        for key_id, key in store.unwrapped(kek).items():
            keyring.add(key_id, key)
    except EnvelopeError as error:
        raise StoreError(f"{folder / FILE}: {error}") from None
    found = audit_memory(store.meta.get, keyring.open, store.store)
    if found is None:
        raise StoreError(f"{folder / FILE}: it holds no key of an audit log that could be opened")
    return found


def _at_rest(folder: Path) -> at_rest.AtRest:
    try:
        found = at_rest.look(folder)
    except OSError as error:
        raise StoreError(f"{folder / FILE}: {error.strerror}") from None
    if found is None:
        raise StoreError(f"{folder / FILE}: there is no store")
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
