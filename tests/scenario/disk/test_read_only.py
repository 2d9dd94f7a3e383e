# A disk that the kernel has given up and made read-only, one whose blocks cannot be written (EIO), and one that is
# mounted read-only at the start: an operator mounts it anew, and brokerd goes on by itself.
from __future__ import annotations

import trio

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.disk.disks import BlockDisk, Disk, run
from tests.scenario.disk.world import daemon, in_trouble, started, works_again

UNAVAILABLE = 4


async def test_a_file_system_that_the_kernel_gave_up_is_used_again_when_it_is_mounted_anew(
    brokerd: Brokerd, serving: Serving, block_disk: BlockDisk
) -> None:
    provider = await started(brokerd, serving)
    block_disk.abort()
    await in_trouble(brokerd, provider, "Read-only file system")
    await trio.to_thread.run_sync(block_disk.mount_anew)
    await works_again(brokerd, provider)


async def test_a_disk_that_fails_to_write_is_used_again_when_it_is_mended(
    brokerd: Brokerd, serving: Serving, block_disk: BlockDisk
) -> None:
    provider = await started(brokerd, serving)
    block_disk.break_()
    sent = 0
    with trio.fail_after(20):  # until a block is needed that the image does not have
        while (await daemon(brokerd))["store"] is None:
            await brokerd.call("reload")
            sent = provider.count("refresh")
            error, _ = await asked(brokerd)
            assert error is None or error["code"] == "unavailable"
    value = await brokerd.get("spends", wait=0)
    assert provider.count("refresh") == sent or (await brokerd.status("spends"))["unstored"]
    assert (await daemon(brokerd))["store_since"]
    block_disk.mend()
    await trio.to_thread.run_sync(block_disk.mount_anew)
    await brokerd.until("spends", lambda status: not status["unstored"], within=40)
    assert await brokerd.get("spends", wait=0) == value
    await works_again(brokerd, provider)


async def asked(brokerd: Brokerd) -> tuple[object, object]:
    async with brokerd.caller() as caller:
        return await caller.answer(await caller.send("refresh", grant="spends"))


async def test_a_start_on_a_read_only_disk_is_tried_again_and_changes_nothing(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    provider = await started(brokerd, serving)
    value = await brokerd.get("spends", wait=0)
    await brokerd.kill()
    run("mount", "-o", "remount,ro", disk.at)
    before = brokerd.bytes_of_state()
    status, said = await brokerd.refuses_to_start()
    assert (status, "Read-only file system" in said, said.count("\n")) == (UNAVAILABLE, True, 1), said
    assert brokerd.bytes_of_state() == before
    run("mount", "-o", "remount,rw", disk.at)
    await brokerd.start()
    assert await brokerd.get("spends", wait=0) == value
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200]
