# A commit that reported a failure, but is on the disk all the same (its sync failed). What happened in memory since
# then, such as a revocation, is not undone by what is found on the disk (laws 2, 4, 10).
from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from trio.testing import MockClock

from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.ports import GenerationConflict, StoreUnavailable
from brokerd.core.secret import Secret
from brokerd.edge.store.store import SqliteStore
from tests.scenario.laws.helpers import imported, until
from tests.scenario.laws.world import REFRESHING, world
from tests.unit.edge.store.stores import PRINT, running, stored

A = "app"


def failing_after_the_fact(store: SqliteStore) -> None:
    """The next commit is written and reported as failed."""
    database = store._database
    commit = database.commit

    def landed() -> None:
        commit()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    database.commit = landed  # type: ignore[method-assign]


async def test_the_store_that_is_opened_again_is_known_although_it_is_one_commit_ahead(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(Record(A, generation=1), PRINT, None, concludes=True)
        failing_after_the_fact(store)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await store.write(Record(A, generation=2), PRINT, 1, concludes=True)
        with pytest.raises(GenerationConflict, match="holds generation 2"):
            await store.write(Record(A, generation=2), PRINT, 1, concludes=True)
        await store.write(Record(A, generation=3), PRINT, 2, concludes=True)
        assert (store.trouble, store.since) == (None, None)
    found = stored(tmp_path)[A, PRINT].record
    assert found is not None
    assert found.generation == 3


async def test_a_revocation_is_not_undone_by_the_commit_before_it_that_was_believed_to_have_failed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        grant, store = made.broker.grants[A], made.store

        async def land_and_fail(record: Record) -> None:
            store.records[A, grant.fingerprint] = record
            store.before_write, store.broken = None, True

        store.before_write = land_and_fail
        await made.broker.import_token(A, Secret(made.provider.new_refresh_token()))
        assert grant.unstored
        assert not (await made.broker.revoke(A)).stored
        store.broken = False
        await until(lambda: not grant.unstored, 600)
        assert grant.record.state is State.REVOKED
        assert [record.state for record in store.records.values()] == [State.REVOKED]
