# Providers' metadata in the store. It is sealed, because whoever could change it could have credentials sent elsewhere.
from __future__ import annotations

import contextlib

import msgspec

from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.sealing import Bound, EnvelopeError
from brokerd.edge.store.data_keys import DataKeys
from brokerd.edge.store.database import Database


def put_metadata(database: Database, keys: DataKeys, provider: str, metadata: Metadata) -> None:
    plain = msgspec.msgpack.encode(metadata)
    database.put_metadata(provider, keys.seal(database, plain, _bound(keys, provider)))


def opened_metadata(database: Database, keys: DataKeys) -> dict[str, Metadata]:
    """By provider. What cannot be opened is left out: brokerd asks the provider again."""
    found = {}
    for provider, sealed in database.metadata():
        with contextlib.suppress(EnvelopeError, msgspec.DecodeError):
            plain = keys.unseal(sealed, _bound(keys, provider))
            found[provider] = msgspec.msgpack.decode(plain, type=Metadata)
    return found


def reseal_metadata(database: Database, keys: DataKeys) -> None:
    """Seal all metadata under the present data key. What cannot be opened stays as it is."""
    for provider, old in database.metadata():
        with contextlib.suppress(EnvelopeError):
            plain = keys.unseal(old, _bound(keys, provider))
            database.put_metadata(provider, keys.seal(database, plain, _bound(keys, provider)))


def _bound(keys: DataKeys, provider: str) -> Bound:
    return Bound(keys.store, provider, 0, "metadata")
