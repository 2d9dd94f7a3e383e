# The journal, and database files that must be refused.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brokerd import __version__
from brokerd.core.grant.renewal import Pace, sent_again_after
from brokerd.core.ports import StoreError
from brokerd.core.timing.moment import Moment
from brokerd.edge.store import database, schema
from brokerd.edge.store.database import Database
from tests.unit.core.values import HOUR, NOW, access
from tests.unit.edge.store.stores import FULL, OTHER_PRINT, PRINT, opened, refused, running, sql, stored, written


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
    assert sent_again_after(found, pace, sent.after(5.0)) == 0.0, (
        "in the same boot it is known how long ago it was sent"
    )
    reboot = Moment(sent.wall + 5.0, 60.0, "another boot")  # an hour has passed, and the clock was set right
    assert sent_again_after(found, pace, reboot) > HOUR


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
