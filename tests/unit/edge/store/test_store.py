# The store on real SQLite files: what was written is there, and a full or missing disk loses nothing (laws 2, 3).
from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from brokerd.core.grant.record import Record
from brokerd.core.ports import GenerationConflict, StoredRecord, StoreUnavailable
from brokerd.core.timing.breaker import Breaker
from brokerd.edge.store import database
from brokerd.edge.store.database import Database
from brokerd.edge.store.store import SqliteStore, in_thread
from tests.unit.core.values import NOW
from tests.unit.edge.store.stores import (
    BIG,
    FULL,
    OTHER_KEK,
    OTHER_PRINT,
    PRINT,
    SECRETS,
    full_disk,
    opened,
    running,
    stored,
    written,
)


async def test_a_store_that_is_opened_again_gives_the_same_records(tmp_path: Path) -> None:
    await written(tmp_path, FULL, Record("ledger"))
    found = stored(tmp_path)
    assert found == {
        ("reports", PRINT): StoredRecord("reports", PRINT, FULL, None),
        ("ledger", PRINT): StoredRecord("ledger", PRINT, Record("ledger"), None),
    }


async def test_what_was_written_is_durable_when_write_returns(tmp_path: Path) -> None:
    """A copy of the files as they lie, as a crash would leave them: nothing waits for a close."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    async with running(source) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        shutil.copytree(source, copy)
    assert stored(copy)["reports", PRINT].record == FULL


async def test_a_commit_reaches_the_disk_before_it_counts(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as store:
        run = store._database._connection.execute
        assert run("PRAGMA synchronous").fetchone() == (2,)  # FULL: law 2
        assert run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert run("PRAGMA secure_delete").fetchone() == (1,)


async def test_each_grant_and_each_fingerprint_has_a_record_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        await store.write(replace(FULL, generation=1), OTHER_PRINT, None, concludes=True)
        assert {row.fingerprint for row in await store.read("reports")} == {PRINT, OTHER_PRINT}
        assert await store.read("ledger") == []


async def test_breakers_outlive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write_breaker("ix", Breaker(7, NOW))
        await store.write_breaker("corp", Breaker(1, None))
        await store.write_breaker("corp", Breaker())
    with closing(opened(tmp_path)) as store:
        assert store.breakers() == {"ix": Breaker(7, NOW), "corp": Breaker()}


async def test_records_lie_dormant_wake_and_are_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        await store.write(FULL, OTHER_PRINT, None, concludes=True)
        await store.set_dormant([("reports", PRINT)], 5.0)
        assert [(row.fingerprint, row.dormant_since) for row in await store.dormant()] == [(PRINT, 5.0)]
        assert [row.fingerprint for row in await store.read("reports")] == [OTHER_PRINT, PRINT]  # the active one first
        await store.set_dormant([("reports", PRINT)], None)
        assert await store.dormant() == []
        assert await store.forget("reports", PRINT) == 1
        assert await store.forget("reports") == 1
        assert await store.forget("reports") == 0
    assert stored(tmp_path) == {}


async def test_a_write_names_the_generation_that_it_replaces(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
        for replaces, found in ((None, "generation 8 where nothing"), (7, "generation 8 where generation 7")):
            with pytest.raises(GenerationConflict, match=f"^reports: the store holds {found} was to be replaced$"):
                await store.write(replace(FULL, generation=9), PRINT, replaces, concludes=True)
        with pytest.raises(GenerationConflict, match="holds nothing where generation 1 was to be replaced"):
            await store.write(Record("ledger"), PRINT, 1, concludes=True)
        assert [row.record.generation for row in await store.read("reports") if row.record] == [8]


async def test_a_fault_of_our_own_in_one_write_neither_ends_the_writer_nor_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)

        def faulty(*_: object) -> None:
            raise AssertionError("a fault that nobody has thought of")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "put_attempt", faulty)
            with pytest.raises(StoreUnavailable, match="a fault of brokerd's own in the store: AssertionError"):
                await store.begin("reports", PRINT, 7, NOW)
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
        assert store.trouble is None
    assert [row.record.generation for row in stored(tmp_path).values() if row.record] == [8]


async def test_a_data_key_that_somebody_changed_meanwhile_is_said_so_and_ends_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        with closing(sqlite3.connect(store.path)) as connection, connection:
            ((good,),) = connection.execute("SELECT wrapped FROM data_key").fetchall()
            connection.execute("UPDATE data_key SET wrapped = zeroblob(60)")
        with pytest.raises(StoreUnavailable, match="so it was changed; nothing was written; put the file back"):
            await store.rewrap(OTHER_KEK)
        with closing(sqlite3.connect(store.path)) as connection, connection:
            connection.execute("UPDATE data_key SET wrapped = ?", (good,))
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
        assert store.trouble is None
    assert [row.record.generation for row in stored(tmp_path).values() if row.record] == [8]


async def test_a_conflict_costs_the_others_of_its_group_nothing(tmp_path: Path) -> None:
    async with held_back(tmp_path) as (store, let_go, commits):
        results: dict[str, object] = {}

        async def attempt(name: str, replaces: int | None) -> None:
            try:
                await store.write(Record(name), PRINT, replaces, concludes=True)
                results[name] = "written"
            except GenerationConflict:
                results[name] = "conflict"

        async with trio.open_nursery() as nursery:
            for name, replaces in (("a", None), ("b", 5), ("c", None)):
                nursery.start_soon(attempt, name, replaces)
            await trio.testing.wait_all_tasks_blocked()
            let_go()
        assert results == {"a": "written", "b": "conflict", "c": "written"}
        assert commits.count == 1
    assert sorted(name for name, _ in stored(tmp_path)) == ["a", "c"]


class Counted:
    count = 0


@asynccontextmanager
async def held_back(folder: Path) -> AsyncIterator[tuple[SqliteStore, Callable[[], None], Counted]]:
    """A store whose first transaction waits until it is let go, and that counts its commits."""
    gate, commits = trio.Event(), Counted()

    async def runner(work: Callable[[], None]) -> None:
        await gate.wait()
        await in_thread(work)

    async with running(folder, runner=runner) as store:
        commit = store._database.commit

        def counted() -> None:
            commits.count += 1
            commit()

        store._database.commit = counted  # type: ignore[method-assign]
        yield store, gate.set, commits


async def test_writes_that_wait_together_become_one_commit(tmp_path: Path) -> None:
    async with held_back(tmp_path) as (store, let_go, commits):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(write_one, store, f"grant-{number}")
            await trio.testing.wait_all_tasks_blocked()
            let_go()
        assert 1 <= commits.count <= 2  # the first may have been taken alone
    assert len(stored(tmp_path)) == 200


async def write_one(store: SqliteStore, name: str) -> None:
    await store.write(Record(name), PRINT, None, concludes=True)


async def test_a_writer_that_is_cancelled_has_written_all_the_same(tmp_path: Path) -> None:
    async with held_back(tmp_path) as (store, let_go, _), trio.open_nursery() as nursery:
        nursery.start_soon(write_one, store, "reports")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        let_go()
    assert ("reports", PRINT) in stored(tmp_path)


async def test_nobody_waits_for_a_store_whose_writer_has_ended(tmp_path: Path) -> None:
    with trio.fail_after(20), closing(opened(tmp_path)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with pytest.raises(StoreUnavailable), trio.CancelScope(shield=True):  # it comes before the writer ends
                await store.read("reports")
        with pytest.raises(StoreUnavailable):
            await store.read("reports")


def every_file(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_no_secret_is_in_any_file_of_the_store(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        await store.write(replace(FULL, generation=8, access_token=None, last_error=None), PRINT, 7, concludes=True)
        while_open = every_file(tmp_path)
    closed = every_file(tmp_path)
    assert "brokerd.db-wal" in while_open
    for files in (while_open, closed):
        for secret in (*SECRETS, "hunter2", "k" * 32):
            assert [name for name, data in files.items() if secret.encode() in data] == []


async def test_the_files_are_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with running(tmp_path) as store:
            await store.write(FULL, PRINT, None, concludes=True)
            modes = modes_in(tmp_path)
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("brokerd.db", "brokerd.db-wal", "brokerd.db-shm", "lock"), 0o600)


async def test_a_store_knows_its_machine_and_its_file(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    with closing(opened(tmp_path)) as store:
        assert store.adopted
    with closing(opened(tmp_path, machine="machine-2")) as store:
        assert not store.adopted
        assert len(store.all()) == 1  # what lives is still served
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy2(tmp_path / database.FILE, copy / database.FILE)
    with closing(opened(copy)) as store:
        assert not store.adopted
    with closing(opened(copy)) as store:
        assert not store.adopted  # to be looked at is no adoption


async def test_an_adopted_store_stays_adopted_where_it_is(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    async with running(tmp_path, machine="machine-2") as store:
        await store.adopt()
        assert store.adopted
    with closing(opened(tmp_path, machine="machine-2")) as store:
        assert store.adopted
    with closing(opened(tmp_path, machine="machine-1")) as store:
        assert not store.adopted


async def test_a_full_disk_fails_every_write_of_its_group_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        with full_disk(store):
            with pytest.raises(StoreUnavailable, match=r"the store cannot be written: .*disk is full"):
                await store.write(replace(BIG, generation=8), PRINT, 7, concludes=True)
            assert "full" in (store.trouble or "")
            assert [row.record for row in await store.read("reports")] == [FULL]
        await store.write(replace(BIG, generation=8), PRINT, 7, concludes=True)
        assert store.trouble is None
    assert stored(tmp_path)["reports", PRINT].record == replace(BIG, generation=8)


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved with its folder"])
async def test_a_file_that_was_deleted_or_replaced_is_noticed(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    async with running(folder) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        if how == "moved with its folder":
            folder.rename(tmp_path / "moved")
        elif how == "replaced":
            shutil.copy2(folder / database.FILE, folder / "copy")
            (folder / "copy").rename(folder / database.FILE)
        else:
            (folder / database.FILE).unlink()
        with pytest.raises(
            StoreUnavailable, match="was deleted or replaced while brokerd runs; put it back, or restart"
        ):
            await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
        with pytest.raises(StoreUnavailable):
            await store.begin("reports", PRINT, 7, NOW)
        assert "restart brokerd" in (store.trouble or "")


async def test_a_record_that_cannot_be_written_costs_its_writer_only(tmp_path: Path) -> None:
    """Half a character (a lone surrogate) has no UTF-8. Whoever let it in must not stop the store for all (law 13)."""
    faults: list[Exception] = []

    async def runner(work: Callable[[], None]) -> None:
        try:
            await in_thread(work)
        except Exception as error:  # the store's task would end here, and with it the daemon
            faults.append(error)

    async with running(tmp_path, runner=runner) as store:
        with contextlib.suppress(Exception):
            await store.write(Record("broken", last_error="\ud800"), PRINT, None, concludes=True)
        assert faults == []
        await write_one(store, "reports")
    assert sorted(name for name, _ in stored(tmp_path)) == ["reports"]


async def test_a_history_is_written_and_read_with_its_record_and_goes_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True, history=b"one")
        await store.write(FULL, OTHER_PRINT, None, concludes=True, history=b"other")
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=False)  # nothing new is known of it
        assert {row.fingerprint: row.history for row in await store.read("reports")} == {
            PRINT: b"one",
            OTHER_PRINT: b"other",
        }
        await store.reencrypt()
        assert {row.history for row in await store.newest("reports")} == {b"one", b"other"}
        await store.forget("reports", OTHER_PRINT)
    with closing(opened(tmp_path)) as store:
        assert [row.history for row in store.all()] == [b"one"]
        assert store._database._connection.execute("SELECT count(*) FROM history").fetchone() == (1,)


async def test_a_history_is_written_with_its_record_or_not_at_all(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True, history=b"one")
        with pytest.raises(GenerationConflict):
            await store.write(replace(FULL, generation=9), PRINT, 8, concludes=True, history=b"two")
        assert [row.history for row in await store.read("reports")] == [b"one"]


async def test_a_history_that_somebody_replaced_by_text_is_read_as_bytes(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(FULL, PRINT, None, concludes=True, history=b"one")
        await store.do(lambda database: database._connection.execute("UPDATE history SET packed = 'text'").rowcount)
        assert [row.history for row in await store.read("reports")] == [b"text"]
