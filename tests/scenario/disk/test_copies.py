# Copies of the state directory: an older one put back, one of a running daemon, one on another machine. Nothing is
# spent before `adopt`, what was revoked stays revoked where the copy knows of it; and what no store can know is shown.
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.scenario.daemon.harness import Brokerd, Serving, until
from tests.scenario.disk.test_deleted import spends_nothing
from tests.scenario.disk.world import brokerctl, daemon, is_well, started

FILES = ("brokerd.db", "brokerd.db-wal", "brokerd.db-shm", "lock")


def copied(state: Path, to: Path) -> Path:
    """With new inodes, as tar, rsync and cp to a new place make them."""
    shutil.copytree(state, to)
    return to


def put_back(copy: Path, state: Path) -> None:
    state.rename(state.with_name("replaced"))  # not removed: its inodes could be given to the copy
    copied(copy, state)


def over(copy: Path, state: Path, names: tuple[str, ...] = FILES) -> None:
    """Into the files that lie there, as `cp copy/* state` does: their inodes stay."""
    for name in names:
        if (copy / name).exists():
            (state / name).write_bytes((copy / name).read_bytes())
            (state / name).chmod(0o600)
        elif name != "lock":
            (state / name).unlink(missing_ok=True)


async def test_an_older_copy_that_was_put_back_spends_nothing_until_it_is_adopted(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await started(brokerd, serving)
    await brokerd.call("revoke", grant="issues")
    copy = copied(brokerd.state, brokerd.folder / "copy")  # of a running daemon, its log along with it
    await brokerd.call("refresh", grant="spends")
    assert await brokerd.stop() == 0
    put_back(copy, brokerd.state)
    await brokerd.start()
    await spends_nothing(brokerd, provider)
    assert "brokerctl adopt" in brokerctl(brokerd, "status")
    assert (await brokerd.error("get", grant="issues"))["code"] == "revoked"
    await brokerd.restart()
    await spends_nothing(brokerd, provider)
    assert brokerctl(brokerd, "adopt")
    await until(lambda: is_well(brokerd))
    await brokerd.restart()
    assert (await daemon(brokerd))["store"] is None
    assert (await brokerd.error("get", grant="issues"))["code"] == "revoked"


@pytest.mark.parametrize("names", [("brokerd.db", "brokerd.db-wal", "brokerd.db-shm")])
async def test_an_older_store_that_was_copied_over_the_newer_in_place_is_known_by_the_lock_file(
    brokerd: Brokerd, serving: Serving, names: tuple[str, ...]
) -> None:
    provider = await started(brokerd, serving)
    copy = copied(brokerd.state, brokerd.folder / "copy")
    await brokerd.call("refresh", grant="spends")
    assert await brokerd.stop() == 0
    over(copy, brokerd.state, names)
    await brokerd.start()
    await spends_nothing(brokerd, provider)


async def test_a_store_that_was_put_back_whole_and_in_place_cannot_be_known_and_costs_a_login(
    brokerd: Brokerd, serving: Serving
) -> None:
    """As a snapshot of the whole machine does: nothing is left that remembers. docs/store.md says so."""
    provider = await started(brokerd, serving)
    copy = copied(brokerd.state, brokerd.folder / "copy")
    await brokerd.call("refresh", grant="spends")
    assert await brokerd.stop() == 0
    over(copy, brokerd.state)
    await brokerd.start()
    assert (await daemon(brokerd))["store"] is None
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200, 400], "the used token is sent once, and refused"
    assert (await brokerd.status("spends"))["state"] == "ready", "there is a password: a new login, by itself"


async def test_on_another_machine_nothing_is_spent_until_it_is_adopted(
    brokerd: Brokerd, serving: Serving, as_root: None
) -> None:
    provider = await started(brokerd, serving)
    value = await brokerd.get("spends", wait=0)
    await brokerd.call("revoke", grant="issues")
    assert await brokerd.stop() == 0
    other = brokerd.write(f"{'0123456789abcdef' * 2}\n", "machine-id")
    script = 'mount --bind "$0" /etc/machine-id && exec "$@"'
    brokerd.within = ("unshare", "-m", "sh", "-c", script, str(other))
    await brokerd.start()  # the same files, to the inode
    await spends_nothing(brokerd, provider)
    assert await brokerd.get("spends", wait=0) == value
    assert (await brokerd.error("get", grant="issues"))["code"] == "revoked"
    assert await brokerd.call("adopt") == {"adopted": True}
    await brokerd.call("refresh", grant="spends")
    assert await brokerd.stop() == 0
    brokerd.within = ()
    await brokerd.start()
    await spends_nothing(brokerd, provider)
    assert provider.counts.reused == 0
