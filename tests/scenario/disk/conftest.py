"""The real daemon of tests/scenario/daemon, on disks that fail; and what all these tests ask of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.scenario.daemon.conftest import as_root, brokerd, folder, serving
from tests.scenario.disk.disks import BlockDisk, Disk

__all__ = ["as_root", "brokerd", "folder", "serving"]


@pytest.fixture
def disk(folder: Path, as_root: None) -> Iterator[Disk]:
    """A tmpfs of one megabyte under the state directory."""
    made = Disk(folder / "state")
    yield made
    made.close()


@pytest.fixture
def block_disk(folder: Path, as_root: None) -> Iterator[BlockDisk]:
    """An ext4 of six megabytes under the state directory."""
    if not Path("/dev/loop-control").exists():
        did_not_run("DISKS WHOSE BLOCKS RUN OUT", "they need loop devices, and there is no /dev/loop-control")
    made = BlockDisk(folder / "state")
    yield made
    made.close()
