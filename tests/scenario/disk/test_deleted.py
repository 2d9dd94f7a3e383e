# The store's files deleted, while brokerd runs and between two runs: what was served goes on from memory, nothing is
# spent, no empty store takes the place of a lost one unnoticed, and what is put back is gone on with (laws 2, 15).
from __future__ import annotations

import shutil

import pytest

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.disk.world import daemon, in_trouble, started, works_again

UNAVAILABLE = 4
WORDS = "was deleted or replaced while brokerd runs; put it back"


@pytest.mark.parametrize("what", ["brokerd.db", "."])
async def test_what_was_moved_away_under_a_running_daemon_and_comes_back_is_gone_on_with(
    brokerd: Brokerd, serving: Serving, what: str
) -> None:
    provider = await started(brokerd, serving)
    file, away = brokerd.state / what, brokerd.folder / "away"
    file.rename(away)
    await in_trouble(brokerd, provider, WORDS)
    away.rename(file)
    await works_again(brokerd, provider)


@pytest.mark.parametrize("what", ["brokerd.db", "."])
async def test_what_was_deleted_under_a_running_daemon_costs_what_no_disk_holds_and_says_so(
    brokerd: Brokerd, serving: Serving, what: str
) -> None:
    provider = await started(brokerd, serving)
    if what == ".":
        shutil.rmtree(brokerd.state)
    else:
        (brokerd.state / what).unlink()
    await in_trouble(brokerd, provider, WORDS)
    assert await brokerd.stop() == 0
    assert brokerd.log.count("could not be stored and is lost") == 2


async def test_a_log_that_was_deleted_under_a_running_daemon_is_written_anew_before_anything_is_committed(
    brokerd: Brokerd, serving: Serving
) -> None:
    """SQLite would go on in the file that has no name any more, and all that it wrote there would end with us."""
    provider = await started(brokerd, serving)
    (brokerd.state / "brokerd.db-wal").unlink()
    await brokerd.call("refresh", grant="spends")
    value = await brokerd.get("spends", wait=0)
    await brokerd.restart()
    assert await brokerd.get("spends", wait=0) == value
    assert (await daemon(brokerd))["store"] is None
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200, 200]


async def test_a_log_that_was_deleted_after_a_crash_is_noticed(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    await brokerd.restart()
    await brokerd.call("refresh", grant="spends")
    await brokerd.kill()
    (brokerd.state / "brokerd.db-wal").unlink()
    await brokerd.start()
    await spends_nothing(brokerd, provider)
    await brokerd.restart()
    await spends_nothing(brokerd, provider)


async def spends_nothing(brokerd: Brokerd, provider: object) -> None:
    found = await daemon(brokerd)
    assert "no stored token is sent; brokerctl adopt" in found["store"]
    await brokerd.said("no stored token is sent")
    sent = provider.count("refresh")  # type: ignore[attr-defined]
    error = await brokerd.error("refresh", grant="spends", wait=0.5)
    assert error["code"] == "unavailable"
    assert provider.count("refresh") == sent  # type: ignore[attr-defined]


async def test_a_store_that_is_gone_at_the_start_is_not_replaced_by_an_empty_one(
    brokerd: Brokerd, serving: Serving
) -> None:
    """An empty one would not know what was revoked (law 10)."""
    await started(brokerd, serving)
    await brokerd.call("revoke", grant="issues")
    assert await brokerd.stop() == 0
    away = brokerd.folder / "away"
    (brokerd.state / "brokerd.db").rename(away)
    status, said = await brokerd.refuses_to_start()
    assert (status, said.count("\n")) == (UNAVAILABLE, 1)
    assert f"brokerd.db is gone; put it back; or delete {brokerd.state}/lock to begin with nothing" in said
    assert sorted(brokerd.bytes_of_state()) == ["audit-0001.jsonl", "lock"]
    away.rename(brokerd.state / "brokerd.db")
    await brokerd.start()
    assert (await daemon(brokerd))["store"] is None
    assert (await brokerd.error("get", grant="issues"))["code"] == "revoked"
    assert await brokerd.stop() == 0
    for file in brokerd.state.rglob("*.*"):
        file.unlink()
    (brokerd.state / "lock").unlink()
    await brokerd.start()
    assert "event=store_created" in brokerd.log
    assert await brokerd.get("spends")
