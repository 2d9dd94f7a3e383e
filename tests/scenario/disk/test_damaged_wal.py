# A write-ahead log that was cut off, has garbage at its end, or whose checkpoint was interrupted. Everything committed
# is there, or the store knows that it is behind and sends no stored token (laws 2, 15).
from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy
from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.disk.test_deleted import spends_nothing
from tests.scenario.disk.world import daemon, started
from tests.unit.edge.store.stores import FULL, KEK, PRINT, running

HEADER, FRAME, PAGE = 32, 24 + 4096, 4096  # bytes of a log's header, of one frame, of the page in it
LAST = 6
FILES = ("brokerd.db", "brokerd.db-wal", "lock")
Files = dict[str, bytes]


@pytest.fixture
async def crashed(tmp_path: Path) -> tuple[Path, Files]:
    """A state directory, and its files as kill -9 leaves them: generations 1 to 6 of a record, all in the log."""
    folder = tmp_path / "state"
    folder.mkdir()
    async with running(folder) as store:
        for generation in range(1, LAST + 1):
            replaces = generation - 1 or None
            await store.write(replace(FULL, generation=generation), PRINT, replaces, concludes=True)
        files = {name: (folder / name).read_bytes() for name in FILES}
    return folder, files


def found(folder: Path, files: Files) -> tuple[int | None, bool]:
    """The generation that the next start finds where these files lie, and whether it may spend. The files are written
    in place: to the store they are the ones that it knows."""
    (folder / "brokerd.db-shm").unlink(missing_ok=True)
    for name in FILES:
        (folder / name).write_bytes(files[name])
    with closing(SqliteStore(folder, KEK, "machine-1", SystemEntropy())) as store:
        records = [row.record for row in store.all()]
        assert None not in records, "a record was torn"
        (record,) = records or [None]
        assert record is None or record == replace(FULL, generation=record.generation)
        return (record.generation if record else None), store.adopted


async def test_a_log_that_is_whole_loses_nothing(crashed: tuple[Path, Files]) -> None:
    assert found(*crashed) == (LAST, True)


async def test_a_log_that_was_cut_off_anywhere_is_whole_commits_and_the_store_knows_that_it_is_behind(
    crashed: tuple[Path, Files],
) -> None:
    folder, files = crashed
    log = files["brokerd.db-wal"]
    frames = (len(log) - HEADER) // FRAME
    edges = [0, 1, HEADER - 1, HEADER]
    for number in range(frames):
        start = HEADER + number * FRAME
        edges += [start + 12, start + 24 + PAGE // 2, start + FRAME - 1, start + FRAME]
    kept: list[int] = []
    for length in edges:
        generation, adopted = found(folder, {**files, "brokerd.db-wal": log[:length]})
        assert adopted == (length >= HEADER + frames * FRAME), f"cut at {length}: generation {generation}"
        kept.append(generation or 0)
    assert kept == sorted(kept)
    assert set(kept) == set(range(LAST + 1))


async def test_garbage_behind_the_log_changes_nothing(crashed: tuple[Path, Files]) -> None:
    folder, files = crashed
    log, chance = files["brokerd.db-wal"], random.Random(7)
    frame = log[HEADER : HEADER + FRAME]
    for garbage in (b"\0" * FRAME, b"\xff" * 100, chance.randbytes(3 * FRAME), frame, frame[:200]):
        assert found(folder, {**files, "brokerd.db-wal": log + garbage}) == (LAST, True)


async def test_a_flipped_byte_in_the_log_ends_it_there(crashed: tuple[Path, Files]) -> None:
    folder, files = crashed
    log = files["brokerd.db-wal"]
    for place in range(10, len(log), 1777):
        torn = log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :]
        generation, adopted = found(folder, {**files, "brokerd.db-wal": torn})
        assert not adopted, f"flipped at {place}"
        assert (generation or 0) < LAST or place > len(log) - FRAME


async def test_a_checkpoint_that_was_interrupted_is_done_again(crashed: tuple[Path, Files]) -> None:
    """Some pages are in the file, others not yet, one in half; the log is still there."""
    folder, files = crashed
    assert found(folder, files) == (LAST, True)
    after, before = (folder / "brokerd.db").read_bytes(), files["brokerd.db"]
    for place in range(0, len(after) + 1, PAGE // 2):
        mixed = after[:place] + before[place:]
        assert found(folder, {**files, "brokerd.db": mixed}) == (LAST, True), f"interrupted at {place}"


async def test_a_daemon_whose_log_was_cut_off_spends_nothing_until_it_is_told_to(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await started(brokerd, serving)
    await brokerd.restart()
    await brokerd.call("refresh", grant="spends")
    await brokerd.kill()
    log = brokerd.state / "brokerd.db-wal"
    log.write_bytes(log.read_bytes()[: -FRAME // 2])
    await brokerd.start()
    await spends_nothing(brokerd, provider)
    assert await brokerd.call("adopt") == {"adopted": True}
    await brokerd.restart()
    assert (await daemon(brokerd))["store"] is None


async def test_a_daemon_whose_log_has_garbage_at_its_end_goes_on(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    value = await brokerd.get("spends", wait=0)
    await brokerd.kill()
    with (brokerd.state / "brokerd.db-wal").open("ab") as log:
        log.write(b"\xa5" * 5000)
    await brokerd.start()
    assert (await daemon(brokerd))["store"] is None
    assert await brokerd.get("spends", wait=0) == value
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200]
