# Data keys: the wrong key is refused, and a key that sealed enough is replaced (law 15).
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.core.ports import StoreError, StoreUnavailable
from brokerd.core.sealing import SEALS_PER_KEY
from brokerd.edge.store.data_keys import RESERVED
from tests.unit.edge.store.stores import (
    BIG,
    FULL,
    OTHER_KEK,
    PRINT,
    full_disk,
    opened,
    refused,
    running,
    sql,
    stored,
    written,
)


async def test_another_key_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    await written(tmp_path, FULL)
    assert refused(tmp_path, OTHER_KEK) == (
        f"{tmp_path}/brokerd.db: the key is not the one that this store was sealed with; nothing was changed; "
        "configure the key that it was made with ([daemon] key)"
    )
    assert stored(tmp_path)["reports", PRINT].record == FULL


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE data_key SET wrapped ="
        " CAST(iif(substr(wrapped, 1, 1) = x'00', x'01', x'00') || substr(wrapped, 2) AS BLOB)",
        "UPDATE data_key SET wrapped = CAST(substr(wrapped, 1, length(wrapped) - 1)"
        " || iif(substr(wrapped, -1) = x'00', x'01', x'00') AS BLOB)",
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
