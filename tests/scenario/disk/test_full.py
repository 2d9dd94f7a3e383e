# A full disk, a tmpfs of one megabyte: nothing is spent, the rest goes on in memory, status and log say since when, and
# all is stored by itself when there is room again (law 2).
from __future__ import annotations

import json
import re

import trio

from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at, until
from tests.scenario.disk.disks import Disk
from tests.scenario.disk.world import BACK, NOTED, brokerctl, daemon, in_trouble, is_well, started, works_again
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2

UNAVAILABLE = 4


async def test_a_full_disk_costs_nothing_and_work_goes_on_by_itself(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    provider = await started(brokerd, serving)
    disk.fill()
    since = await in_trouble(brokerd, provider, "full")
    assert (await daemon(brokerd))["store_since"] == since
    assert brokerd.log.count(NOTED) == 1
    shown = await trio.to_thread.run_sync(brokerctl, brokerd, "status")
    assert re.search(r"disk is full \(failing for \d+ s, since \d\d:\d\d:\d\d\)", shown)
    found = json.loads(await trio.to_thread.run_sync(brokerctl, brokerd, "status", "--json"))
    assert (found["daemon"]["store_since"], "full" in found["daemon"]["store"]) == (since, True)
    disk.make_room()
    await works_again(brokerd, provider)


async def test_a_status_does_not_say_for_ever_what_was_wrong_once(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    """Only a forgetting failed: nothing is unstored, nobody writes again, and reading works on a full disk."""
    provider = await started(brokerd, serving)
    brokerd.configure({"issues": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.call("reload")
    disk.fill()
    assert (await brokerd.error("forget", grant="spends"))["code"] == "unavailable"
    brokerd.configure({"issues": FIVE["oauth2"], "new": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.call("reload")  # reads the store
    found = await daemon(brokerd)
    assert "full" in (found["store"] or ""), "to have read is no proof of room"
    disk.make_room()
    await until(lambda: is_well(brokerd))
    await brokerd.said(BACK)


async def test_a_token_that_came_while_the_disk_filled_is_served_and_kept_until_it_can_be_stored(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    provider = await started(brokerd, serving)
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            number = await caller.send("refresh", grant="spends")
            await gate.reached()
            disk.fill()
            gate.release()
            error, _ = await caller.answer(number)
    assert error is None
    value = await brokerd.get("spends", wait=0)
    assert (await brokerd.status("spends"))["unstored"]
    assert (await brokerd.error("refresh", grant="spends", wait=0.1))["code"] == "unavailable"
    assert provider.count("refresh") == 1, "another rotation, without a journal"
    disk.make_room()
    await brokerd.until("spends", lambda status: not status["unstored"])
    await brokerd.restart()
    assert await brokerd.get("spends", wait=0) == value
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200, 200]


async def test_an_end_on_a_full_disk_says_what_is_lost(brokerd: Brokerd, serving: Serving, disk: Disk) -> None:
    provider = await started(brokerd, serving)
    disk.fill()
    await in_trouble(brokerd, provider, "full")
    assert await brokerd.stop() == 0
    lost = [line for line in brokerd.log.splitlines() if "could not be stored and is lost" in line]
    assert len(lost) == 2
    assert any("grant=issues" in line and "generation=2 stored=1" in line for line in lost)
    await brokerd.start()  # the end has left some pages free
    assert (await brokerd.status("issues"))["generation"] == 1
    disk.make_room()
    await until(lambda: is_well(brokerd))
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200]


async def test_what_cannot_be_told_on_a_full_disk_is_a_revocation_that_lasts(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    await started(brokerd, serving)
    disk.fill()
    done = await brokerd.call("revoke", grant="spends")
    assert (done["stored"], "could NOT be stored" in done["detail"]) == (False, True)
    assert (await brokerd.error("get", grant="spends"))["code"] == "revoked"
    disk.make_room()
    await brokerd.until("spends", lambda status: not status["unstored"])
    await brokerd.restart()
    assert (await brokerd.error("get", grant="spends"))["code"] == "revoked"


async def test_a_first_start_on_a_full_disk_is_tried_again(brokerd: Brokerd, serving: Serving, disk: Disk) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    disk.fill()
    status, said = await brokerd.refuses_to_start()
    assert (status, "full" in said or "No space" in said, said.count("\n")) == (UNAVAILABLE, True, 1), said
    disk.make_room()
    await brokerd.start()
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    await brokerd.call("import", grant="app", refresh_token=token.value)
    assert await brokerd.get("app")
    assert "event=store_created" in brokerd.log
