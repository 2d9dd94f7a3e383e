# Pages of the database that were damaged on the disk, between two runs and under a running daemon: refused with the
# remedy, or one grant set aside; never opened wrongly, never overwritten (laws 2, 15).
from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.core.ports import StoreError
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy
from tests.scenario.daemon.harness import FIVE, Brokerd, Ended, Serving, at
from tests.scenario.disk.world import daemon, started
from tests.servers import OAuth2
from tests.unit.edge.store.stores import FULL, KEK, written

CONFIGURATION = 2
FILES = ("brokerd.db", "brokerd.db-wal")
PAGE = 4096
GRANTS = 12


async def test_no_damaged_page_is_taken_for_a_sound_one(tmp_path: Path) -> None:
    """Each page in turn: its head, its middle, its end, all of it."""
    await written(tmp_path, *(replace(FULL, name=f"grant-{number:02}") for number in range(GRANTS)))
    file = tmp_path / "brokerd.db"
    sound = file.read_bytes()
    refused = set_aside = 0
    for page in range(len(sound) // PAGE):
        for start, length in ((0, 1), (3, 4), (8, 60), (PAGE // 2, 64), (PAGE - 40, 40), (0, PAGE)):
            place = page * PAGE + start
            damaged = sound[:place] + bytes(each ^ 0xA5 for each in sound[place : place + length])
            damaged += sound[place + length :]
            file.write_bytes(damaged)
            try:
                store = SqliteStore(tmp_path, KEK, "machine-1", SystemEntropy())
            except StoreError:
                refused += 1
                assert file.read_bytes() == damaged, f"page {page} at {start}: overwritten"
                continue
            with closing(store):
                for row in store.all():
                    assert row.damage or row.record == replace(FULL, name=row.grant), f"page {page} at {start}"
                    set_aside += row.damage is not None
    assert refused > 10
    assert set_aside > 5


async def test_a_damaged_record_costs_its_grant_and_the_others_go_on(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    names = [f"app{number}" for number in range(6)]
    brokerd.configure(dict.fromkeys(names, FIVE["oauth2-password"]), {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.call("get_many", grants=names)
    assert await brokerd.stop() == 0
    file = brokerd.state / "brokerd.db"
    data = bytearray(file.read_bytes())
    with closing(sqlite3.connect(file)) as database:
        ((sealed,),) = database.execute("SELECT sealed FROM record WHERE name = 'app3'")
    data[data.index(sealed[:64]) + 32] ^= 1
    file.write_bytes(data)
    await brokerd.start()
    status = await brokerd.status("app3")
    assert (status["state"], "brokerctl forget app3" in status["last_error"]) == ("misconfigured", True)
    for name in names:
        if name != "app3":
            await brokerd.call("refresh", grant=name)
    assert provider.count("refresh") == len(names) - 1
    assert await brokerd.call("forget", grant="app3") == {"grant": "app3", "forgotten": 1}
    assert await brokerd.get("app3")


@pytest.mark.parametrize("page", [0, 2, 3])
async def test_pages_that_are_damaged_under_a_running_daemon_spend_nothing_that_is_not_journalled(
    brokerd: Brokerd, serving: Serving, page: int
) -> None:
    """Whatever SQLite still has in memory: living tokens are served, a renewal is either journalled and stored or not
    sent, and the next start refuses what is left or finds what was stored."""
    provider = await started(brokerd, serving)
    await brokerd.restart()  # everything is in the file, nothing in the log
    value = await brokerd.get("spends", wait=0)
    file = brokerd.state / "brokerd.db"
    with file.open("r+b") as opened:
        opened.seek(page * PAGE)
        opened.write(b"\xff" * PAGE)
    assert await brokerd.get("spends", wait=0) == value
    async with brokerd.caller() as caller:
        error, _ = await caller.answer(await caller.send("refresh", grant="spends", wait=1))
    newest = await brokerd.get("spends", wait=0)
    found = await daemon(brokerd)
    if error is not None:
        assert provider.count("refresh") == 0
        assert (found["store"] is not None, found["store_since"] is not None) == (True, True), error
    await brokerd.kill()
    before = brokerd.bytes_of_state()
    refusal = ""
    try:
        await brokerd.start()
    except Ended as ended:
        refusal = str(ended)
    if not refusal:
        assert await brokerd.get("spends", wait=0) == newest
    else:
        assert f"with status {CONFIGURATION} " in refusal
        assert "restore a copy of the state directory" in refusal
        after = brokerd.bytes_of_state()
        assert [after[name] for name in FILES] == [before[name] for name in FILES], "overwritten"
    assert provider.count("refresh") == 0 or provider.statuses("refresh") == [200]
