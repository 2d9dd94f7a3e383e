# The store's keys are replaced while it serves, and whoever kills the daemon at any commit of it finds a store that
# opens with one of the two keys, every token in it, and that goes on where it was interrupted.
from __future__ import annotations

import contextlib
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import trio

from brokerd.edge.store import key_file
from tests.forked import Forked, fork_server
from tests.scenario.daemon.harness import FIVE, Brokerd, Executed, Serving, Table, at, until
from tests.servers import OAuth2

CONFIGURATION = 2  # exit status
GRANTS = 25  # three groups of those that kill_at_commit.py makes
POINTS = (-1, 1, *range(1, 20))  # what the first two kill at is done once


class DyingBrokerd(Brokerd):
    """One that kills itself at a commit: the `dies_at`-th after the rotation has begun."""

    dies_at = 0

    def _begin(self, arguments: list[str], output: int, module: str = "brokerd.daemon.main") -> Executed | Forked:
        if self.dies_at:
            return fork_server("tests.scenario.daemon.kill_at_commit")([str(self.dies_at), *arguments], output)
        return super()._begin(arguments, output, module)


async def installed(brokerd: Brokerd, serving: Serving, number: int = 1) -> dict[str, str]:
    """A running daemon with so many grants; the values that it serves."""
    provider = await serving(OAuth2())
    grants: dict[str, Table] = {f"app-{index}": FIVE["oauth2"] for index in range(number)}
    brokerd.configure(grants, {"oauth2": at(provider)})
    await brokerd.start()
    return await served(brokerd, number)


async def is_done(brokerd: Brokerd) -> bool:
    return (await brokerd.call("status"))["daemon"]["resealing_since"] is None


async def served(brokerd: Brokerd, number: int) -> dict[str, str]:
    names, found = [f"app-{index}" for index in range(number)], {}
    for start in range(0, number, 50):
        some = names[start : start + 50]
        for name, answer in zip(some, await brokerd.call("get_many", grants=some, wait=30), strict=True):
            found[name] = answer["token"]["value"]
    return found


def new_key(brokerd: Brokerd) -> Path:
    """Another key, named in the configuration beside the previous one."""
    path = brokerd.etc / "key.new"
    key_file.create(path)
    config = brokerd.config.read_text()
    new, old = f'key = {{ "file" = "{path}" }}', f'previous_key = {{ "file" = "{brokerd.key}" }}'
    assert f'key = {{ "file" = "{brokerd.key}" }}' in config
    brokerd.write(config.replace(f'key = {{ "file" = "{brokerd.key}" }}', f"{new}\n{old}"))
    return path


def data_keys(brokerd: Brokerd) -> list[int]:
    with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection:
        return [number for (number,) in connection.execute("SELECT id FROM data_key ORDER BY id")]


async def test_another_key_takes_over_while_it_serves_and_the_old_one_is_refused_by_name(
    brokerd: Brokerd, serving: Serving
) -> None:
    values = await installed(brokerd, serving)
    before = brokerd.config.read_text()
    error = await brokerd.error("rotate_key")
    assert (error["code"], "brokerctl keygen" in error["message"]) == ("bad_request", True)
    new_key(brokerd)
    await brokerd.restart()  # before it came to the rotation
    assert await brokerd.call("rotate_key") == {"rewrapped": True, "reencrypted": 0, "damaged": 0}
    assert await served(brokerd, 1) == values
    brokerd.key.rename(brokerd.etc / "key.old")
    await brokerd.restart()
    assert await served(brokerd, 1) == values
    await brokerd.stop()
    (brokerd.etc / "key.old").rename(brokerd.key)
    brokerd.write(before)
    status, said = await brokerd.refuses_to_start()
    assert (status, "the key was replaced by another one (brokerctl key rotate)" in said) == (CONFIGURATION, True)


async def test_everything_is_sealed_anew_and_a_copy_of_the_old_data_key_opens_nothing(
    brokerd: Brokerd, serving: Serving
) -> None:
    values = await installed(brokerd, serving, 3)
    with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection:
        (old,) = connection.execute("SELECT wrapped FROM data_key").fetchone()
        sealed = {value for (value,) in connection.execute("SELECT sealed FROM record")}
    assert await brokerd.call("rotate_key", full=True) == {"rewrapped": False, "reencrypted": 3, "damaged": 0}
    assert data_keys(brokerd) == [2]
    for data in brokerd.bytes_of_state().values():
        assert old not in data
        assert not any(each in data for each in sealed), "overwritten, in the log as well"
    await brokerd.restart()
    assert await served(brokerd, 3) == values


async def test_a_record_that_cannot_be_opened_keeps_its_data_key(brokerd: Brokerd, serving: Serving) -> None:
    await installed(brokerd, serving, 2)
    with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection, connection:
        connection.execute("UPDATE record SET sealed = sealed || x'00' WHERE name = 'app-1'")
    assert await brokerd.call("rotate_key", full=True) == {"rewrapped": False, "reencrypted": 2, "damaged": 1}
    assert data_keys(brokerd) == [1, 2]


async def test_from_a_file_to_a_passphrase_and_back(brokerd: Brokerd, serving: Serving) -> None:
    values = await installed(brokerd, serving)
    file = brokerd.config.read_text()
    passphrase = file.replace(f'key = {{ "file" = "{brokerd.key}" }}', "key = { passphrase = true }")
    brokerd.write(passphrase)
    assert "--passphrase" in (await brokerd.error("rotate_key"))["message"]
    await brokerd.call("rotate_key", passphrase="test-only-correct-horse")
    await brokerd.restart()
    await brokerd.call("unlock", passphrase="test-only-correct-horse")
    assert await served(brokerd, 1) == values
    brokerd.write(file)
    await brokerd.call("rotate_key")
    await brokerd.restart()
    assert await served(brokerd, 1) == values


async def test_killed_at_any_commit_of_a_rotation_everything_is_there_and_the_next_start_goes_on(
    folder: Path, nursery: trio.Nursery, serving: Serving
) -> None:
    brokerd = DyingBrokerd(folder / "one", nursery)
    values = await installed(brokerd, serving, GRANTS)
    await brokerd.stop()
    new_key(brokerd)
    killed = 0
    for brokerd.dies_at in POINTS:
        await brokerd.start()
        async with brokerd.caller() as caller:
            with contextlib.suppress(EOFError, trio.BrokenResourceError):
                error, _ = await caller.answer(await caller.send("rotate_key", full=True))
                assert error is None
                break
        killed += 1
        assert await brokerd.ended() == -signal.SIGKILL
        brokerd.dies_at = 0
        await brokerd.start()
        assert await served(brokerd, GRANTS) == values
        await until(lambda: is_done(brokerd), within=20)  # by itself
        assert len(data_keys(brokerd)) == 1
        await brokerd.stop()
    assert killed >= 7, "before it began, rewrapped, a new data key, three groups, the old one deleted"
    assert len(data_keys(brokerd)) == 1
    assert await served(brokerd, GRANTS) == values
    await brokerd.close()
