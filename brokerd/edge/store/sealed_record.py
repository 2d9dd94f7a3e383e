# A record's form in the store: MessagePack, sealed, bound to the store, the grant, the generation and the fingerprint.
# Missing fields get their default; unknown fields are ignored.
from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from sys import intern
from typing import Any, get_type_hints

import msgspec

from brokerd.core.exchange.scope import shared
from brokerd.core.grant.attempts import reopened
from brokerd.core.grant.record import Record
from brokerd.core.grant.tokens import NO_FIELDS, AccessToken
from brokerd.core.ports import StoredRecord
from brokerd.core.sealing import Bound, EnvelopeError
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.store.data_keys import DataKeys
from brokerd.edge.store.database import Database, Row


def seal(database: Database, keys: DataKeys, record: Record, fingerprint: str) -> bytes:
    """Raises StoreUnavailable; TypeError or ValueError if the record cannot be encoded."""
    return keys.seal(database, encoded(record), Bound(keys.store, record.name, record.generation, fingerprint))


def open_row(keys: DataKeys, row: Row) -> StoredRecord:
    """Raises StoreUnavailable."""
    try:
        plain = keys.unseal(row.sealed, Bound(keys.store, row.grant, row.generation, row.fingerprint))
        record = decoded(plain)
    except (EnvelopeError, msgspec.DecodeError) as error:
        words = str(error) if isinstance(error, EnvelopeError) else "it is not in a form that this version knows"
        return StoredRecord(row.grant, row.fingerprint, None, row.dormant_since, words, history=row.history)
    record = reopened(record, interrupted=row.attempt)
    return StoredRecord(row.grant, row.fingerprint, record, row.dormant_since, history=row.history)


def encoded(record: Record) -> bytes:
    return msgspec.msgpack.encode(_StoredForm(*_VALUES(record)), enc_hook=_encode)


def decoded(plain: bytes) -> Record:
    """Raises msgspec.DecodeError."""
    found = _DECODER.decode(plain)
    _share(found)
    return Record(*msgspec.structs.astuple(found))


def _share(found: Any) -> None:
    """Texts that many records have become one object each: there may be a hundred thousand."""
    token: AccessToken | None = found.access_token
    found.requested = intern(found.requested)
    if token is None:
        return
    issued = _dated(token.issued)
    scope = token.scope and shared(tuple(map(intern, token.scope)))
    found.access_token = msgspec.structs.replace(
        token, token_type=intern(token.token_type), issued=issued, scope=scope, fields=token.fields or NO_FIELDS
    )
    found.changed = issued if found.changed == token.issued else found.changed


def _dated(moment: Moment) -> Moment:
    return Moment(moment.wall, moment.boot, intern(moment.boot_id), moment.trusted)


def _encode(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _decode(expected: type, raw: object) -> object:
    if expected is Secret and isinstance(raw, str):
        return Secret(raw)
    raise NotImplementedError(expected)


# Fields that were renamed in the code keep their name in the store: a store of every release can be read, and the
# release before can go on with a store of this one. tokens.py and the class DownscopedToken name theirs themselves.
STORED_NAMES = {
    "downscoped": "variants",
    "pending_revocations": "doomed",
    "previous_refresh": "earlier",
    "proven_password": "proven",
    "requested": "asked",
    "retry_after": "asked_until",
    "revocation_failures": "untold",
    "revocation_retry": "telling",
    "revoked_locally": "local",
    "superseded": "outlived",
    "tried_credentials": "instead",
    "unrevoked": "survivors",
}
_TYPES = get_type_hints(Record)
_FIELDS = [(field.name, _TYPES[field.name], field.default) for field in fields(Record)[1:]]
_StoredForm: Any = msgspec.defstruct("_StoredForm", [("name", str), *_FIELDS], rename=STORED_NAMES)
_VALUES = attrgetter(*_StoredForm.__struct_fields__)
_DECODER = msgspec.msgpack.Decoder(_StoredForm, dec_hook=_decode)
