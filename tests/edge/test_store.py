# The store on real SQLite files: what was written is there, what was changed, moved or copied is refused, and whoever
# refuses has overwritten nothing (laws 2, 3, 15).
from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd import __version__
from brokerd.core.breaker import Breaker
from brokerd.core.envelope import SEALS_PER_KEY
from brokerd.core.grant import State
from brokerd.core.moment import Moment
from brokerd.core.ports import GenerationConflict, StoreError, StoreUnavailable
from brokerd.core.record import AccessToken, Doomed, Doubt, Earlier, Record, RefreshToken
from brokerd.core.renewal import Pace, risked_after
from brokerd.core.secret import Secret
from brokerd.edge import database, schema
from brokerd.edge.data_keys import RESERVED
from brokerd.edge.database import Database
from brokerd.edge.entropy import SystemEntropy
from brokerd.edge.lock import Held, Lock
from brokerd.edge.sealed_record import Stored, fingerprint
from brokerd.edge.store import Store, in_thread
from tests.core.values import HOUR, NOW, access, refresh

KEK, OTHER_KEK = b"k" * 32, b"x" * 32
PRINT = fingerprint(("ix-api", "https://api.example", "api_key=k"))
OTHER_PRINT = fingerprint(("ix-api", "https://elsewhere.example", "api_key=k"))
SECRETS = ("hunter2-access-token", "hunter2-refresh-token", "hunter2-doomed-token")

FULL = Record(
    "reports",
    generation=7,
    state=State.RETRYING,
    access_token=access(600.0, value=SECRETS[0], id="id-1", scope=("read", "write")),
    refresh_token=refresh(None, value=SECRETS[1], id="id-2", rejected=NOW),
    earlier=Earlier(refresh(value=SECRETS[1]), NOW),
    doomed=(Doomed(access_token=access(value=SECRETS[2])), Doomed(refresh_token=refresh(value=SECRETS[2]))),
    interrupted=NOW,
    retry=NOW.after(5),
    asked_until=NOW.after(4),
    rotation_retry=NOW.after(6),
    rotation_failures=2,
    refused=b"digest",
    doubt=Doubt(b"password", b"request", 2, NOW),
    proven=b"proven",
    asked="asked",
    renewals=9,
    failures=3,
    instead=True,
    last_error="503",
    first_error="200",
    changed=NOW,
)


def opened(folder: Path, kek: bytes = KEK, machine: str = "machine-1", **more: Any) -> Store:
    return Store(folder, kek, machine, SystemEntropy(), **more)


@asynccontextmanager
async def running(folder: Path, kek: bytes = KEK, machine: str = "machine-1", **more: Any) -> AsyncIterator[Store]:
    """An open store that makes its writes, as the daemon holds it."""
    with trio.fail_after(20), closing(opened(folder, kek, machine, **more)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()


def stored(folder: Path, kek: bytes = KEK) -> dict[tuple[str, str], Stored]:
    """Everything that a fresh process finds."""
    with closing(opened(folder, kek)) as store:
        return {(row.grant, row.fingerprint): row for row in store.all()}


async def written(folder: Path, *records: Record, print_: str = PRINT) -> None:
    async with running(folder) as store:
        for record in records:
            await store.write(record, print_, None, concludes=True)


@contextmanager
def sql(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else's hands reach it."""
    with closing(sqlite3.connect(folder / database.FILE)) as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        yield connection
        connection.commit()


def content(folder: Path) -> list[object]:
    """Every row of every table, and the file's own marks."""
    with sql(folder) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        marks = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")]
        return [*marks, *((name, sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)) for name in tables)]


def refused(folder: Path, kek: bytes = KEK) -> str:
    """The error that opening ends in; nothing has been changed by it."""
    file = folder / database.FILE
    before = file.read_bytes()
    with pytest.raises(StoreError) as caught:
        opened(folder, kek)
    assert file.read_bytes() == before
    return str(caught.value)


# What was written is there


async def test_a_store_that_is_opened_again_gives_the_same_records(tmp_path: Path) -> None:
    await written(tmp_path, FULL, Record("ledger"))
    found = stored(tmp_path)
    assert found == {
        ("reports", PRINT): Stored("reports", PRINT, FULL, None),
        ("ledger", PRINT): Stored("ledger", PRINT, Record("ledger"), None),
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


moments = st.builds(Moment, st.floats(0, 1e10), st.floats(0, 1e9), st.text(max_size=5), st.booleans())
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
seconds = st.none() | st.floats(-1e9, 1e9)
secrets = st.builds(Secret, texts)
access_tokens = st.builds(
    AccessToken, secrets, texts, moments, seconds, st.floats(0, 1), st.none() | texts, st.none() | st.tuples(texts)
)
refresh_tokens = st.builds(RefreshToken, secrets, moments, seconds, st.floats(0, 1), st.none() | texts)
records = st.builds(
    Record,
    name=st.just("reports"),
    generation=st.integers(0, 2**40),
    state=st.sampled_from([state for state in State if state is not State.RENEWING]),
    access_token=st.none() | access_tokens,
    refresh_token=st.none() | refresh_tokens,
    doomed=st.lists(st.builds(Doomed, access_tokens) | st.builds(Doomed, st.none(), refresh_tokens), max_size=2).map(
        tuple
    ),
    interrupted=st.none() | moments,
    retry=st.none() | moments,
    refused=st.none() | st.binary(max_size=32),
    last_error=st.none() | texts,
    changed=st.none() | moments,
)


@settings(max_examples=15, deadline=None)
@given(st.lists(records, min_size=1, max_size=5))
def test_any_record_comes_back_as_it_was(several: list[Record]) -> None:
    async def there_and_back(folder: Path) -> None:
        async with running(folder) as store:
            for number, record in enumerate(several):
                await store.write(record, f"print-{number}", None, concludes=True)
            found = {row.fingerprint: row.record for row in await store.read("reports")}
            assert found == {f"print-{number}": record for number, record in enumerate(several)}

    with tempfile.TemporaryDirectory() as folder:
        trio.run(there_and_back, Path(folder))


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


# Generations


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
async def held_back(folder: Path) -> AsyncIterator[tuple[Store, Callable[[], None], Counted]]:
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


async def write_one(store: Store, name: str) -> None:
    await store.write(Record(name), PRINT, None, concludes=True)


async def test_a_writer_that_is_cancelled_has_written_all_the_same(tmp_path: Path) -> None:
    async with held_back(tmp_path) as (store, let_go, _), trio.open_nursery() as nursery:
        nursery.start_soon(write_one, store, "reports")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        let_go()
    assert ("reports", PRINT) in stored(tmp_path)


# The journal


async def test_an_exchange_whose_end_nobody_saw_marks_its_generation(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(replace(FULL, interrupted=None), PRINT, None, concludes=True)
        await store.begin("reports", PRINT, 7, NOW)
    found = stored(tmp_path)["reports", PRINT].record
    assert found is not None
    assert found.interrupted == NOW


async def test_the_providers_grace_is_not_counted_from_a_clock_that_nobody_trusted_before_a_reboot(
    tmp_path: Path,
) -> None:
    sent = NOW._replace(wall=NOW.wall + HOUR, trusted=False)  # an hour ahead
    async with running(tmp_path) as store:
        living = replace(FULL, interrupted=None, access_token=access(4 * HOUR))
        await store.write(living, PRINT, None, concludes=True)
        await store.begin("reports", PRINT, 7, sent)
    found, pace = stored(tmp_path)["reports", PRINT].record, Pace(reuse_grace=30.0)
    assert found is not None
    assert found.interrupted == sent
    assert risked_after(found, pace, sent.after(5.0)) == 0.0, "in the same boot it is known how long ago it was sent"
    reboot = Moment(sent.wall + 5.0, 60.0, "another boot")  # an hour has passed, and the clock was set right
    assert risked_after(found, pace, reboot) > HOUR


@pytest.mark.parametrize(("generation", "print_"), [(6, PRINT), (8, PRINT), (7, OTHER_PRINT)])
async def test_the_journal_of_another_generation_or_fingerprint_says_nothing(
    tmp_path: Path, generation: int, print_: str
) -> None:
    async with running(tmp_path) as store:
        await store.write(replace(FULL, interrupted=None), PRINT, None, concludes=True)
        await store.begin("reports", print_, generation, NOW)
    assert stored(tmp_path)["reports", PRINT].record == replace(FULL, interrupted=None)


async def test_what_concludes_an_exchange_takes_its_journal_along(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.write(replace(FULL, interrupted=None), PRINT, None, concludes=True)
        await store.begin("reports", PRINT, 7, NOW)
        await store.write(replace(FULL, interrupted=None, failures=4), PRINT, 7, concludes=False)
        (row,) = await store.read("reports")
        assert row.record is not None
        assert row.record.interrupted == NOW
        await store.write(replace(FULL, interrupted=None, failures=5), PRINT, 7, concludes=True)
        (row,) = await store.read("reports")
        assert row.record is not None
        assert row.record.interrupted is None


async def test_the_journal_of_one_fingerprint_does_not_hide_that_of_another(tmp_path: Path) -> None:
    """A configuration that was changed and changed back must still know what was interrupted before (law 3)."""
    async with running(tmp_path) as store:
        for print_ in (PRINT, OTHER_PRINT):
            await store.write(replace(FULL, interrupted=None), print_, None, concludes=True)
        await store.begin("reports", PRINT, 7, NOW)
        await store.begin("reports", OTHER_PRINT, 7, NOW.after(5))
    found = stored(tmp_path)["reports", PRINT].record
    assert found is not None
    assert found.interrupted == NOW


# What was changed, moved or copied


async def test_another_key_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    assert refused(tmp_path, OTHER_KEK) == (
        f"{tmp_path}/brokerd.db: the key is not the one that this store was sealed with; nothing was changed; "
        "configure the key that it was made with ([daemon] key)"
    )
    assert stored(tmp_path)["reports", PRINT].record == FULL


MOVES = {
    "to another grant": "UPDATE record SET name = 'ledger' WHERE name = 'reports' AND generation = 7",
    "under another fingerprint": f"UPDATE record SET fingerprint = '{OTHER_PRINT}' WHERE name = 'reports'",
    "to a newer generation": "UPDATE record SET generation = 8 WHERE name = 'reports'",
    "to an older generation": "UPDATE record SET generation = 6 WHERE name = 'reports'",
    "out of another grant": (
        "UPDATE record SET sealed = (SELECT sealed FROM record WHERE name = 'other') WHERE name = 'reports'"
    ),
    "cut short": "UPDATE record SET sealed = substr(sealed, 1, 30) WHERE name = 'reports'",
    "emptied": "UPDATE record SET sealed = x'' WHERE name = 'reports'",
    "taken for text": "UPDATE record SET sealed = CAST(sealed AS TEXT) WHERE name = 'reports'",
    "replaced by text": "UPDATE record SET sealed = 'text, and long enough to be one' WHERE name = 'reports'",
}


@pytest.mark.parametrize("move", MOVES)
async def test_a_record_that_was_moved_is_not_opened_and_not_overwritten(tmp_path: Path, move: str) -> None:
    await written(tmp_path, FULL, replace(FULL, name="other"))
    with sql(tmp_path) as connection:
        connection.execute(MOVES[move])
    before = content(tmp_path)
    found = stored(tmp_path)
    (moved,) = [row for row in found.values() if row.grant != "other"]
    assert moved.record is None
    assert moved.damage
    assert found["other", PRINT].record == replace(FULL, name="other")  # damage costs its own grant only
    assert content(tmp_path) == before


async def test_the_sealed_bytes_of_an_older_generation_do_not_open_in_the_newer_ones_place(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        (old,) = connection.execute("SELECT sealed FROM record").fetchone()
    async with running(tmp_path) as store:
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
    with sql(tmp_path) as connection:
        connection.execute("UPDATE record SET sealed = ?", (old,))
    assert stored(tmp_path)["reports", PRINT].damage == "it was changed, or moved here from another place"


async def test_a_record_of_another_store_is_not_opened_even_with_the_same_key(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        await written(folder, FULL)
    with sql(theirs) as connection:
        (sealed,) = connection.execute("SELECT sealed FROM record").fetchone()
        keys_ = connection.execute("SELECT * FROM data_key").fetchall()
    with sql(mine) as connection:
        connection.execute("UPDATE record SET sealed = ?", (sealed,))
    assert stored(mine)["reports", PRINT].record is None
    with sql(mine) as connection:  # its data key along with it
        connection.execute("DELETE FROM data_key")
        connection.executemany("INSERT INTO data_key VALUES (?, ?, ?)", keys_)
    assert "not the one that this store was sealed with" in refused(mine)


async def test_no_flipped_bit_of_a_sealed_record_goes_unnoticed(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        (sealed,) = connection.execute("SELECT sealed FROM record").fetchone()
    for position in sorted({*range(20), *range(20, len(sealed), 83), len(sealed) - 1}):
        changed = bytearray(sealed)
        changed[position] ^= 1 << position % 8
        with sql(tmp_path) as connection:
            connection.execute("UPDATE record SET sealed = ?", (bytes(changed),))
        assert stored(tmp_path)["reports", PRINT].damage, position


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE data_key SET wrapped = CAST(x'00' || substr(wrapped, 2) AS BLOB)",
        "UPDATE data_key SET wrapped = CAST(substr(wrapped, 1, length(wrapped) - 1) || x'00' AS BLOB)",
        "UPDATE data_key SET wrapped = x''",
        "UPDATE data_key SET wrapped = CAST(wrapped AS TEXT)",
        "UPDATE data_key SET id = 2",
        "UPDATE meta SET value = 'f' || substr(value, 1, 31) WHERE key = 'store'",
        "DELETE FROM meta WHERE key = 'store'",
    ],
)
async def test_a_store_whose_keys_were_changed_is_refused_and_not_touched(tmp_path: Path, change: str) -> None:
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        connection.execute(change)
    assert "nothing was changed" in refused(tmp_path)


async def test_a_store_whose_data_keys_are_gone_says_so_of_every_record_and_overwrites_none(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        connection.execute("DELETE FROM data_key")
        before = connection.execute("SELECT * FROM record").fetchall()
    with pytest.raises(StoreError):
        opened(tmp_path)
    with sql(tmp_path) as connection:
        assert connection.execute("SELECT * FROM record").fetchall() == before
        assert connection.execute("SELECT count(*) FROM data_key").fetchone() == (0,)


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema.VERSION + 2,))
        connection.execute("UPDATE meta SET value = '0.9.0' WHERE key = 'release'")
    assert refused(tmp_path) == (
        f"{tmp_path}/brokerd.db was written by brokerd 0.9.0 (schema {schema.VERSION + 2}); this is {__version__}, "
        f"more than one release older (schema {schema.VERSION}); install that release or the one before it, or restore "
        "a copy from before"
    )


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with sql(tmp_path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    assert refused(tmp_path) == f"{tmp_path}/brokerd.db is a database, and not one of brokerd's; move it away"


@pytest.mark.parametrize("bytes_", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, bytes_: bytes) -> None:
    (tmp_path / database.FILE).write_bytes(bytes_)
    assert refused(tmp_path).startswith(f"{tmp_path}: the store cannot be opened: ")


def test_a_folder_that_is_not_there_is_an_error_of_the_stores(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the store cannot be opened"):
        opened(tmp_path / "nowhere")


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    await written(tmp_path, *(replace(FULL, name=f"grant-{number}") for number in range(30)))
    file = tmp_path / database.FILE
    data = bytearray(file.read_bytes())
    data[3 * 4096 : 3 * 4096 + 200] = b"\xff" * 200
    file.write_bytes(data)
    assert "restore a copy of the state directory" in refused(tmp_path)


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


async def test_a_store_whose_creation_was_cut_short_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Database, key: str, value: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Database, "set_meta", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    await written(tmp_path, FULL)
    with sql(tmp_path) as connection:
        (store_id,) = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
    assert len(store_id) == 32
    assert stored(tmp_path)["reports", PRINT].record == FULL


# A disk that is full, away, or gone


@contextmanager
def full_disk(store: Store) -> Iterator[None]:
    """Not one page more."""
    run = store._database._connection.execute
    pages = run("PRAGMA page_count").fetchone()[0]
    run(f"PRAGMA max_page_count = {pages}")
    yield
    run("PRAGMA max_page_count = 1000000")


BIG = replace(FULL, access_token=access(value="x" * 200_000))


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


# Data keys


def used_up(folder: Path) -> None:
    with sql(folder) as connection:
        connection.execute("UPDATE data_key SET seals = ?", (SEALS_PER_KEY - RESERVED // 2,))


async def test_a_key_that_sealed_enough_is_followed_by_a_new_one(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    used_up(tmp_path)
    async with running(tmp_path) as store:
        await store.write(replace(FULL, name="new"), PRINT, None, concludes=True)
    with sql(tmp_path) as connection:
        assert [key for (key,) in connection.execute("SELECT id FROM data_key ORDER BY id")] == [1, 2]
    found = stored(tmp_path)
    assert found["reports", PRINT].record == FULL
    assert found["new", PRINT].record == replace(FULL, name="new")


async def test_seals_are_counted_before_they_are_made(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    await written(tmp_path, replace(FULL, name="other"))  # what an earlier process had reserved is not used
    with sql(tmp_path) as connection:
        assert connection.execute("SELECT seals FROM data_key").fetchone() == (2 * RESERVED,)


async def test_nothing_is_sealed_under_a_new_key_that_a_full_disk_did_not_take(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    used_up(tmp_path)
    async with running(tmp_path) as store:
        with full_disk(store), pytest.raises(StoreUnavailable):
            await store.write(replace(BIG, generation=8), PRINT, 7, concludes=True)
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
    assert stored(tmp_path)["reports", PRINT].record == replace(FULL, generation=8)


# One daemon for one state directory


def test_a_second_daemon_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    with pytest.raises(Held) as caught:
        Lock(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is in use by the brokerd with pid {os.getpid()}; end that one first, or set another state_dir"
    )
    held.release()
    Lock(tmp_path).release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_fingerprint_parts_what_looks_alike() -> None:
    assert fingerprint(("a", "bc")) != fingerprint(("ab", "c"))
    assert fingerprint(("a",)) != fingerprint(("a", ""))
    assert fingerprint(("a", "b")) == fingerprint(("a", "b"))
    assert len(fingerprint(("a",))) == 32
