# A record's form in the store: MessagePack, sealed, bound to the store, the grant, the generation and the fingerprint.
# Fields that a form lacks have their default, those that it has too many are left out.
from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from brokerd.core.envelope import Bound, EnvelopeError
from brokerd.core.record import Record, reopened
from brokerd.core.secret import Secret
from brokerd.edge.data_keys import DataKeys
from brokerd.edge.database import Database, Row


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of the store. `damage`: it could not be opened, and why; `record` is then None. `recovered`: it is what
    the process before could not store; `unstored`: nor could we yet, and the store holds generation `replaces`."""

    grant: str
    fingerprint: str
    record: Record | None
    dormant_since: float | None
    damage: str | None = None
    recovered: bool = False
    unstored: bool = False
    replaces: int | None = None


def fingerprint(identity: tuple[str, ...]) -> str:
    """What a record is bound to besides its grant (law 15), as 32 hexadecimal digits."""
    return hashlib.sha256(msgspec.msgpack.encode(identity)).hexdigest()[:32]


def seal(database: Database, keys: DataKeys, record: Record, fingerprint: str) -> bytes:
    """Raises StoreUnavailable; TypeError or ValueError where it has no form."""
    return keys.seal(database, encoded(record), Bound(keys.store, record.name, record.generation, fingerprint))


def open_row(keys: DataKeys, row: Row) -> Stored:
    """Raises StoreUnavailable."""
    try:
        plain = keys.unseal(row.sealed, Bound(keys.store, row.grant, row.generation, row.fingerprint))
        record = decoded(plain)
    except (EnvelopeError, msgspec.DecodeError) as error:
        words = str(error) if isinstance(error, EnvelopeError) else "it is not in a form that this version knows"
        return Stored(row.grant, row.fingerprint, None, row.dormant_since, words)
    return Stored(row.grant, row.fingerprint, reopened(record, interrupted=row.attempt), row.dormant_since)


def encoded(record: Record) -> bytes:
    return msgspec.msgpack.encode(record, enc_hook=_encode)


def decoded(plain: bytes) -> Record:
    """Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(plain, type=Record, dec_hook=_decode)


def _encode(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _decode(wanted: type, raw: object) -> object:
    if wanted is Secret and isinstance(raw, str):
        return Secret(raw)
    raise NotImplementedError(wanted)
