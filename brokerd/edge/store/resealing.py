# Seals everything in the store under a new data key (key rotate --full), in groups between other writes, then deletes
# the old data keys. Each function except `everything` runs inside a transaction.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from brokerd.core.sealing import Bound, EnvelopeError, key_id_of
from brokerd.edge.store import sealed_meta
from brokerd.edge.store.data_keys import DataKeys
from brokerd.edge.store.database import Database
from brokerd.edge.store.provider_metadata import reseal_metadata

GROUP = 100  # records in one transaction
Place = tuple[str, str]  # grant and fingerprint
START: Place = ("", "")


def begin(database: Database, keys: DataKeys, since: float) -> int:
    """Add a data key and return its id. It is stored until the end, so that a later process can continue."""
    current = keys.renew(database)
    database.begin_resealing(current, since)
    return current


def begun(database: Database) -> int | None:
    """The data key of a run that was interrupted, if there is one."""
    found = database.resealing()
    return None if found is None else found[0]


async def everything(
    do: Callable[[Callable[[Database], Any]], Awaitable[Any]], keys: DataKeys, current: int
) -> tuple[int, int]:
    """Seal everything under the data key `current`. `do` runs one transaction. Returns how many records there were, and
    how many could not be opened."""
    await do(lambda database: all_but_records(database, keys))
    place, count, damaged = START, 0, 0

    def next_group(database: Database) -> list[tuple[Place, bool]]:
        return some_records(database, keys, current, place)

    while rows := await do(next_group):
        place, count, damaged = rows[-1][0], count + len(rows), damaged + sum(not is_well for _, is_well in rows)
    return count, damaged


def all_but_records(database: Database, keys: DataKeys) -> None:
    """What cannot be opened stays as it is."""
    reseal_metadata(database, keys)
    sealed_meta.reseal(database, keys)


def some_records(database: Database, keys: DataKeys, current: int, after: Place) -> list[tuple[Place, bool]]:
    """Seal the next group. Returns the place of each record, and whether it could be opened."""
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
    """Delete the data keys before `current` that are not used any more, neither in the store nor `elsewhere`. Returns
    the old ones that are left."""
    database.end_resealing()
    return keys.retire(database, current, (*sealed_meta.all_sealed(database), *elsewhere))
