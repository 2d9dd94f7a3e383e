# An audit log that cannot be written: the configured choice holds, status and log say so, nothing is lost when there is
# room again.
from __future__ import annotations

from tests.scenario.audit.logs import brokerctl, lines, written
from tests.scenario.audit.test_daemon import started
from tests.scenario.daemon.harness import Brokerd, Serving, until
from tests.scenario.disk.disks import Disk
from tests.scenario.disk.world import daemon

NOTED, BACK = "event=audit_not_written", "event=audit_written_again"


async def in_trouble(brokerd: Brokerd) -> bool:
    return (await daemon(brokerd))["audit"] is not None


async def fail(brokerd: Brokerd, disk: Disk) -> None:
    """Fill the disk; bad input needs a file of its own, which is not to be had."""
    disk.fill()
    async with brokerd.caller() as caller:
        await caller.stream.send_all(b"\xc1")
        await caller.closed()
    await until(lambda: in_trouble(brokerd))


async def test_serving_goes_on_loudly_and_what_happened_meanwhile_is_written_later(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    await written(brokerd, event="get")
    await fail(brokerd, disk)
    found = await daemon(brokerd)
    assert ("No space left" in found["audit"], found["audit_since"] > found["started_at"]) == (True, True)
    await brokerd.said(NOTED)
    assert await brokerd.get("app")
    await brokerd.error("get", grant="given")
    disk.make_room()
    await brokerd.said(BACK)
    assert not await in_trouble(brokerd)
    await written(brokerd, event="get", grant="given")
    assert len(lines(brokerd, "denied", event="bad_input")) == 1
    assert brokerctl(brokerd, "verify")[0] == 0


async def test_serving_stops_where_that_is_wanted_and_begins_again_by_itself(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    await started(brokerd, serving, audit="stop")
    await brokerd.get("app")
    async with brokerd.caller() as watcher:
        await watcher.call("watch", grants=["app"])
        assert (await watcher.event())[0] == "token"
        await written(brokerd, event="watch")
        await fail(brokerd, disk)
        error = await brokerd.error("get", grant="app")
        assert (error["code"], "the audit log cannot be written" in error["message"]) == ("unavailable", True)
        (many,) = await brokerd.call("get_many", grants=["app"])
        assert many["error"]["code"] == "unavailable"
        assert (await brokerd.call("revoke", grant="given"))["grant"] == "given", "what protects goes on"
        disk.make_room()
        await brokerd.said(BACK)
        assert await brokerd.get("app")
    assert lines(brokerd, event="get", outcome="unavailable")


async def test_with_stop_nothing_is_served_before_the_log_was_written_once(brokerd: Brokerd, serving: Serving) -> None:
    await started(brokerd, serving, audit="stop")
    await brokerd.get("app")
    assert await brokerd.stop() == 0
    (brokerd.state / "audit").rename(brokerd.state / "away")
    (brokerd.state / "audit").touch(0o600)
    await brokerd.start()
    assert (await brokerd.error("get", grant="app"))["code"] == "unavailable"
