# Sealing everything in the store anew under the newest data key, in groups beside other writes; then the data keys
# before it go. Synchronous pieces for the store's transactions; in which order they come is the store's matter.
from __future__ import annotations

import contextlib
from collections.abc import Iterable

from brokerd.core.envelope import Bound, EnvelopeError, key_id_of
from brokerd.edge import sealed
from brokerd.edge.data_keys import DataKeys
from brokerd.edge.database import Database

GROUP = 100  # records that are sealed anew in one transaction, beside those of callers
Place = tuple[str, str]  # grant and fingerprint: where a record lies
START: Place = ("", "")


def begin(database: Database, keys: DataKeys, since: float) -> int:
    """Under a new data key, whose id is returned. Until the end it is written down, so that it can go on."""
    current = keys.renew(database)
    database.begin_resealing(current, since)
    return current


def begun(database: Database) -> int | None:
    """The data key of the one that was interrupted, if it is not at its end already."""
    found = database.resealing()
    return None if found is None else found[0]


def bound_metadata(store: str, provider: str) -> Bound:
    """What a provider's metadata is bound to."""
    return Bound(store, provider, 0, "metadata")


def all_but_records(database: Database, keys: DataKeys) -> None:
    """What cannot be opened stays as it is."""
    for provider, old in database.metadata():
        bound = bound_metadata(keys.store, provider)
        with contextlib.suppress(EnvelopeError):
            database.put_metadata(provider, keys.seal(database, keys.unseal(old, bound), bound))
    sealed.reseal(database, keys)


def some_records(database: Database, keys: DataKeys, current: int, after: Place) -> list[tuple[Place, bool]]:
    """The next group: where each record lies, and whether it could be opened."""
    done = []
    for grant, fingerprint, generation, old in database.rows_after(after, GROUP):
        bound = Bound(keys.store, grant, generation, fingerprint)
        is_well = True
        if (key_id_of(old) or 0) < current:  # it may have been written meanwhile
            try:
                plain = keys.unseal(old, bound)
            except EnvelopeError:
                is_well = False
            else:
                database.put_resealed(grant, fingerprint, keys.seal(database, plain, bound))
        done.append(((grant, fingerprint), is_well))
    return done


def end(database: Database, keys: DataKeys, current: int, elsewhere: Iterable[bytes]) -> list[int]:
    """Delete the data keys before `current` that nothing is sealed under any more, in the store or `elsewhere`; those
    that are left."""
    database.end_resealing()
    return keys.retire(database, current, (*sealed.all_sealed(database), *elsewhere))
