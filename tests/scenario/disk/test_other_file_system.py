# The state directory on a file system of its own, or behind a link to one: unmounted under a running daemon, which then
# looks at an empty directory, and mounted again; or something else is mounted there (laws 2, 3).
from __future__ import annotations

import shutil
from pathlib import Path

import trio

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.disk.disks import BlockDisk, Disk, run
from tests.scenario.disk.world import in_trouble, started, works_again

WORDS = "was deleted or replaced while brokerd runs; put it back"


async def test_an_unmounted_disk_is_written_into_again_when_it_is_back_and_never_beside_it(
    brokerd: Brokerd, serving: Serving, block_disk: BlockDisk
) -> None:
    provider = await started(brokerd, serving)
    block_disk.unmount()
    await in_trouble(brokerd, provider, WORDS)
    assert list(brokerd.state.iterdir()) == [], "written into the directory under the mount"
    await trio.to_thread.run_sync(block_disk.mount)
    await works_again(brokerd, provider)


async def test_a_link_to_another_file_system_is_as_good_as_a_directory(
    brokerd: Brokerd, serving: Serving, as_root: None
) -> None:
    disk = Disk(brokerd.folder / "volume")
    try:
        (disk.at / "brokerd").mkdir(0o700)
        brokerd.state.symlink_to(disk.at / "brokerd")
        provider = await started(brokerd, serving)
        elsewhere = brokerd.folder / "elsewhere"
        elsewhere.mkdir()
        run("mount", "--bind", disk.at, elsewhere)
        disk.unmount()
        try:
            await in_trouble(brokerd, provider, WORDS)
            run("mount", "--bind", elsewhere, disk.at)
            await works_again(brokerd, provider)
        finally:
            run("umount", "-l", elsewhere)
    finally:
        disk.close()


async def test_an_older_store_that_is_mounted_in_the_place_is_not_touched(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    provider = await started(brokerd, serving)
    older = brokerd.folder / "older"
    shutil.copytree(brokerd.state, older)
    await brokerd.call("refresh", grant="spends")
    run("mount", "--bind", older, brokerd.state)
    before = files(older)
    await in_trouble(brokerd, provider, WORDS)
    assert files(older) == before
    disk.unmount()
    await works_again(brokerd, provider)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
