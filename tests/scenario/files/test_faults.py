# Kills, full disks, folders of others: a reader finds the old file or the new one, and never a part.
from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.harness import Brokerd, until
from tests.scenario.disk.disks import Disk
from tests.scenario.files.conftest import renew
from tests.scenario.files.process import Files
from tests.servers import OAuth2

MARK = "----"


class Reader:
    """A thread that reads the file again and again, and notes each text that is not whole."""

    def __init__(self, path: Path) -> None:
        self.reads = 0
        self.parts: list[str] = []
        self._path, self._ends = path, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ends.is_set():
            text = self._path.read_text()
            self.reads += 1
            if not (text.startswith(MARK) and text.endswith(MARK) and len(text) > 2 * len(MARK)):
                self.parts.append(text)


async def test_no_reader_ever_finds_a_part_of_a_file_over_kills(
    brokerd: Brokerd, imported: OAuth2, files: Files
) -> None:
    files.describe({"template": f"{MARK}{{access_token}}{' ' * 100_000}{MARK}"})
    await files.start()
    with Reader(files.target / "token") as reader:
        for turn in range(6):
            value = await renew(brokerd, imported, 3 + turn)
            await files.kill()
            await files.start()
        await until(lambda: value in (files.text() or ""))
    assert (reader.parts, reader.reads > 100) == ([], True)
    assert [path.name for path in files.target.iterdir()] == ["token"]


async def test_what_a_kill_left_is_swept_away_and_nothing_else(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    left = files.target / ".token.brokerd-0123abcd"
    others = [
        files.target / name for name in (".other.brokerd-0123abcd", ".token.brokerd-mine-and-longer", "token.bak")
    ]
    for path in (left, *others):
        path.write_text("half a secr")
    files.describe({})
    await files.start()
    assert (left.exists(), [path.exists() for path in others]) == (False, [True, True, True])


@pytest.fixture
def small(files: Files, as_root: None) -> Iterator[Disk]:
    """The target folder, on a disk of one megabyte."""
    made = Disk(files.target)
    files.target.chmod(0o755)
    yield made
    made.close()


async def test_a_full_disk_leaves_the_old_file_whole_and_the_new_one_comes_by_itself(
    brokerd: Brokerd, provider: OAuth2, files: Files, small: Disk
) -> None:
    files.describe({"on_change": files.tells()})
    await files.start()
    old = await brokerd.get("app")
    await until(lambda: len(files.runs_of_on_change) == 1)
    small.fill()
    await brokerd.call("refresh", grant="app")
    await files.said("No space left on device; make room in")
    assert files.text() == old
    assert [path.name for path in files.target.iterdir() if path.name != "ballast"] == ["token"]
    small.make_room()
    await files.holds(await brokerd.get("app"), within=20)
    await until(lambda: len(files.runs_of_on_change) == 2)


async def test_a_revoked_token_goes_from_a_full_disk_too(
    brokerd: Brokerd, provider: OAuth2, files: Files, small: Disk
) -> None:
    files.describe({"on_revoke": "empty"})
    await files.start()
    small.fill()
    await brokerd.call("revoke", grant="app")
    await until(lambda: not files.text())


async def test_nothing_secret_is_written_where_others_may_write(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe({})
    files.target.chmod(0o777)
    code, said = await files.run("--once")
    assert (code, "who could replace the file; chmod go-w" in said) == (2, True)
    files.target.chmod(0o755)
    await files.start()
    value = await brokerd.get("app")
    files.target.chmod(0o777)
    await brokerd.call("refresh", grant="app")
    await files.said("can be written by others")
    assert files.text() == value
    files.target.chmod(0o1777)  # sticky and ours
    await files.holds(await brokerd.get("app"), within=20)


async def test_the_commands_of_a_file_that_others_may_write_are_not_run(files: Files) -> None:
    files.describe({"on_change": files.tells()})
    files.toml.chmod(0o666)
    code, said = await files.run("--once")
    assert (code, "everybody on this machine can write to" in said) == (2, True)


async def test_the_file_of_another_user_is_not_obeyed(files: Files, as_root: None) -> None:
    import os

    files.describe({"on_change": files.tells()})
    os.chown(files.toml, 60_900, 60_900)
    code, said = await files.run("--once")
    assert (code, "its commands would run as 0; run this as its owner" in said) == (2, True)
    await trio.lowlevel.checkpoint()
