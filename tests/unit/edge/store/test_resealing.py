# Keys are replaced while the disk fails: an interrupted replacement goes on, and a commit that reached the disk
# although it failed is recognised.
from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.core.ports import StoreUnavailable
from brokerd.edge.store import resealing
from brokerd.edge.store.database import Database
from tests.unit.edge.store.stores import FULL, running, sql, stored, written


async def test_what_was_interrupted_is_known_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a", "b", "c")
    await written(tmp_path, *(replace(FULL, name=name) for name in names))
    put = Database.put_resealed

    def fails(self: Database, grant: str, *values: object) -> None:
        if grant == "b":
            raise sqlite3.OperationalError("database or disk is full")
        put(self, grant, *values)  # type: ignore[arg-type]

    async with running(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(resealing, "GROUP", 1)
            patch.setattr(Database, "put_resealed", fails)
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await store.reencrypt()
        since = store.resealing_since
        assert since is not None
        await store.write(replace(FULL, name="meanwhile"), "print", None, concludes=True)
    with sql(tmp_path) as connection:
        assert connection.execute("SELECT id FROM data_key ORDER BY id").fetchall() == [(1,), (2,)]
    async with running(tmp_path) as store:
        assert store.resealing_since == since
        assert await store.reencrypt(goes_on=True) == (4, 0)
        assert store.resealing_since is None
    with sql(tmp_path) as connection:
        assert connection.execute("SELECT id FROM data_key").fetchall() == [(2,)]
        assert connection.execute("SELECT * FROM resealing").fetchall() == []
    assert sorted(name for name, _ in stored(tmp_path)) == [*names, "meanwhile"]


async def test_a_rewrapping_that_failed_and_landed_is_known_before_the_next_use_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path, FULL)
    commit, newer, newest = Database.commit, b"n" * 32, b"m" * 32

    def lands(self: Database) -> None:
        commit(self)
        raise sqlite3.OperationalError("disk I/O error")

    async with running(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "commit", lands)
            with pytest.raises(StoreUnavailable):
                await store.rewrap(newer)
        assert await store.reencrypt() == (1, 0), "the new data key is wrapped under the key that the others have"
        await store.rewrap(newest)
    assert [row.record for row in stored(tmp_path, newest).values()] == [FULL]


async def test_a_new_data_key_whose_commit_failed_and_landed_opens_what_was_sealed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path, FULL)
    commit, beside = Database.commit, replace(FULL, name="beside")

    def lands(self: Database) -> None:
        commit(self)
        raise sqlite3.OperationalError("disk I/O error")

    async with running(tmp_path) as store:

        def both(database: Database) -> None:  # in one transaction
            resealing.begin(database, store.keys, 1.0)
            store._writing(beside, "print", None, True, b"")(database)

        with monkeypatch.context() as patch:
            patch.setattr(Database, "commit", lands)
            with pytest.raises(StoreUnavailable):
                await store.do(both)
        assert [row.record for row in await store.read("beside")] == [beside]
        assert await store.reencrypt() == (2, 0), "the next data key has another number"
