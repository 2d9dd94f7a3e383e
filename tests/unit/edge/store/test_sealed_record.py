# A record comes back as it was written; one that was changed or moved is not opened (law 15).
from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd.core.grant.record import Record
from tests.unit.edge.store.stores import (
    FULL,
    OTHER_PRINT,
    PRINT,
    content,
    records,
    refused,
    running,
    sql,
    stored,
    written,
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
