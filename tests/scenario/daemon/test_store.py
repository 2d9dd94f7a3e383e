# The state directory against what happens to it: another key, rows that were moved or changed, a newer schema, a copy,
# two daemons, no room left. Refused with words that help, nothing overwritten (laws 2, 15).
from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from brokerd.edge.store import key_file
from tests.did_not_run import did_not_run
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at, every
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2, oauth2

CONFIGURATION, UNAVAILABLE = 2, 4  # exit statuses


# -- what is not ours to open


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brokerd that was stopped in order: its key, and a state directory with a record in it."""
    folder = tmp_path_factory.mktemp("left")

    async def leave() -> None:
        async with trio.open_nursery() as nursery:
            brokerd = Brokerd(folder, nursery)
            nobody = {"dialect": "oauth2", "token_url": "http://127.0.0.1:1/token"}
            brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": nobody})
            await brokerd.start()
            await brokerd.said("operation=issue")
            assert await brokerd.stop() == 0

    trio.run(leave)
    return folder


def another_key(brokerd: Brokerd) -> None:
    brokerd.key.unlink()
    key_file.create(brokerd.key)


def no_key(brokerd: Brokerd) -> None:
    brokerd.key.unlink()


def half_a_key(brokerd: Brokerd) -> None:
    brokerd.key.write_text(brokerd.key.read_text()[:30])


def sql(statement: str) -> Callable[[Brokerd], None]:
    def change(brokerd: Brokerd) -> None:
        with database(brokerd) as file:
            file.execute(statement)

    return change


def overwritten(start: int, end: int | None, data: bytes) -> Callable[[Brokerd], None]:
    def change(brokerd: Brokerd) -> None:
        path = brokerd.state / "brokerd.db"
        content = path.read_bytes()
        path.write_bytes(content[:start] + data + (b"" if end is None else content[end:]))

    return change


def open_to_all(brokerd: Brokerd) -> None:
    brokerd.state.chmod(0o755)


WRONG_KEY = "the key is not the one that this store was sealed with; nothing was changed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(another_key, WRONG_KEY, id="wrong key"),
        pytest.param(no_key, "make one with: brokerctl keygen ", id="no key"),
        pytest.param(half_a_key, 'expected one line "brokerd-key-1:"', id="half a key"),
        pytest.param(sql("PRAGMA user_version = 99"), "more than one release older", id="newer"),
        pytest.param(sql("PRAGMA application_id = 7"), "and not one of brokerd's", id="another program's"),
        pytest.param(sql("UPDATE data_key SET wrapped = zeroblob(60)"), WRONG_KEY, id="data key overwritten"),
        pytest.param(sql("UPDATE meta SET value = 'x' WHERE key = 'store'"), WRONG_KEY, id="another store's"),
        pytest.param(overwritten(0, 4096, b"\xff" * 4096), "cannot be opened", id="no database"),
        pytest.param(overwritten(5000, None, b""), "", id="cut off"),
        pytest.param(open_to_all, "can be opened by others than its owner; chmod 700 ", id="open to all"),
    ],
)
async def test_what_cannot_be_trusted_is_refused_and_nothing_is_overwritten(
    brokerd: Brokerd, left_behind: Path, change: Callable[[Brokerd], None], words: str
) -> None:
    shutil.copytree(left_behind / "state", brokerd.state)
    shutil.copy(left_behind / "etc" / "key", brokerd.key)
    brokerd.configure({}, {})
    change(brokerd)
    before = brokerd.bytes_of_state()
    status, said = await brokerd.refuses_to_start()
    assert status == CONFIGURATION
    assert words in said
    assert (said.count("\n"), "Traceback" in said) == (1, False), said
    after = brokerd.bytes_of_state()
    assert after["brokerd.db"] == before["brokerd.db"]
    assert not brokerd.socket.exists()


async def test_a_second_daemon_refuses_to_start_and_says_who_holds_the_state(
    brokerd: Brokerd, serving: Serving, folder: Path
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    second = Brokerd(folder / "second", brokerd.nursery)
    same_state = brokerd.config.read_text().replace(str(brokerd.socket), str(second.socket))
    second.write(same_state)
    status, said = await second.refuses_to_start()
    assert status == UNAVAILABLE
    assert f"in use by the brokerd with pid {brokerd.pid}" in said
    second.write(brokerd.config.read_text().replace(str(brokerd.state), str(second.state)))
    status, said = await second.refuses_to_start()
    assert status == CONFIGURATION
    assert f"another process listens at {brokerd.socket}" in said
    assert await brokerd.get("app", wait=0) == value


# -- what was moved or changed within


async def test_a_flipped_bit_costs_its_own_grant_only_and_nothing_is_overwritten(
    brokerd: Brokerd, serving: Serving
) -> None:
    fleet = await serving.all(3600)
    places = {"format": 0, "key-id": 4, "nonce": 5, "body": 30, "tag": -1}
    grants = dict.fromkeys((*places, "sound"), FIVE["oauth2"])
    brokerd.configure(grants, every(fleet.by_name))
    await brokerd.start()
    await brokerd.call("get_many", grants=list(grants))
    await brokerd.stop()
    with database(brokerd) as file:
        for name, place in places.items():
            flip(file, name, place)
        before = rows(file)
    await brokerd.start()
    sent = fleet.oauth2.count()
    for name in places:
        error = await brokerd.error("get", grant=name)
        assert error["code"] == "misconfigured"
        assert "its stored record cannot be opened" in error["message"]
        assert f"brokerctl forget {name}" in error["message"]
        status = await brokerd.status(name)
        assert (status["state"], status["expires_at"]) == ("misconfigured", None)
    assert await brokerd.get("sound", wait=0)
    for method, params in (("refresh", {}), ("revoke", {}), ("import", {"refresh_token": "another"})):
        error = await brokerd.error(method, grant="body", **params)
        assert error["code"] == "misconfigured", f"{method}: {error}"
    assert fleet.oauth2.count() == sent
    await brokerd.restart()
    assert (await brokerd.error("get", grant="body"))["code"] == "misconfigured"
    await brokerd.stop()
    with database(brokerd) as file:
        assert rows(file) == before
    await brokerd.start()
    assert await brokerd.call("forget", grant="body") == {"grant": "body", "forgotten": 1}
    assert await brokerd.get("body")
    assert fleet.oauth2.count() == sent + 1


async def test_a_row_that_was_copied_to_another_grant_or_time_does_not_open(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(3600)
    grants = dict.fromkeys(("copied", "to", "older", "print", "moved"), FIVE["oauth2"])
    brokerd.configure(grants, every(fleet.by_name))
    await brokerd.start()
    await brokerd.call("get_many", grants=list(grants))
    await brokerd.stop()
    with database(brokerd) as file:
        old = file.execute("SELECT sealed FROM record WHERE name = 'older'").fetchone()[0]
    await brokerd.start()
    await brokerd.call("refresh", grant="older")
    await brokerd.stop()
    with database(brokerd) as file:
        file.execute("UPDATE record SET sealed = (SELECT sealed FROM record WHERE name = 'copied') WHERE name = 'to'")
        file.execute("UPDATE record SET sealed = ? WHERE name = 'older'", (old,))
        file.execute("UPDATE record SET generation = 0 WHERE name = 'moved'")
        file.execute("UPDATE record SET fingerprint = ? WHERE name = 'print'", ("0" * 32,))
    sent = fleet.oauth2.count()
    await brokerd.start()
    assert await brokerd.get("copied", wait=0)
    assert await brokerd.get("print")  # under another fingerprint it is nobody's: a new life
    for name in ("to", "older", "moved"):
        error = await brokerd.error("get", grant=name)
        assert (error["code"], "cannot be opened" in error["message"]) == ("misconfigured", True), name
    assert fleet.oauth2.count() == sent + 1


async def test_a_copied_store_spends_nothing_until_it_is_adopted(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    await give(brokerd, provider)
    value = await brokerd.get("app")
    await brokerd.stop()
    copied = brokerd.state.rename(brokerd.folder / "original")
    shutil.copytree(copied, brokerd.state)
    await brokerd.start()
    assert await brokerd.get("app", wait=0) == value
    assert "brokerctl adopt" in (await brokerd.call("status"))["daemon"]["store"]
    sent = provider.count()
    error = await brokerd.error("refresh", grant="app", wait=1)
    assert (error["code"], "brokerctl adopt" in error["message"]) == ("unavailable", True)
    await brokerd.restart()
    assert (await brokerd.error("refresh", grant="app", wait=1))["code"] == "unavailable"
    assert provider.count() == sent
    assert await brokerd.call("adopt") == {"adopted": True}
    assert await brokerd.call("adopt") == {"adopted": False}
    await brokerd.call("refresh", grant="app")
    await brokerd.restart()
    assert (await brokerd.call("status"))["daemon"]["store"] is None


# -- no room


Disk = Callable[[bool], None]


@pytest.fixture
def limited(brokerd: Brokerd) -> Disk:
    """Nothing can be written (True): a limit on the size of the daemon's files; or all can (False)."""

    def limit(full: bool) -> None:
        size = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(brokerd.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


@pytest.fixture
def disk(brokerd: Brokerd, as_root: None) -> Iterator[Disk]:
    """Fills the disk under the state directory (True), a file system of one megabyte, or makes room again (False)."""
    brokerd.state.mkdir(0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", brokerd.state], check=False)
    if mounted.returncode:
        did_not_run("A FULL DISK", "mounting is not allowed here; the same is tested with a limit")
    ballast = brokerd.state / "ballast"

    def fill(full: bool) -> None:
        if not full:
            ballast.unlink()
            return
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    yield fill
    subprocess.run(["umount", "-l", brokerd.state], check=True)


async def test_on_a_full_disk_nothing_is_spent_and_the_rest_goes_on_in_memory(
    brokerd: Brokerd, serving: Serving, disk: Disk
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"spends": FIVE["oauth2-password"], "issues": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value, first = await brokerd.get("spends"), await brokerd.get("issues")
    disk(True)
    error = await brokerd.error("refresh", grant="spends", wait=1)
    assert (error["code"], "cannot be written" in error["message"]) == ("unavailable", True), error
    assert provider.count("refresh") == 0, "sent without a journal"
    assert (await brokerd.status("spends"))["interrupted"] is None
    assert await brokerd.get("spends", wait=0) == value
    await brokerd.call("refresh", grant="issues")
    second = await brokerd.get("issues", wait=0)
    assert second != first
    assert (await brokerd.status("issues"))["unstored"]
    assert "brokerd.db" in (await brokerd.call("status"))["daemon"]["store"]
    disk(False)
    await brokerd.until("issues", lambda status: not status["unstored"])
    await brokerd.until("spends", lambda status: not status["unstored"])
    assert (await brokerd.call("status"))["daemon"]["store"] is None
    await brokerd.restart()
    assert await brokerd.get("issues", wait=0) == second
    await brokerd.call("refresh", grant="spends")
    assert provider.statuses("refresh") == [200]
    assert provider.counts.families_killed == 0


async def test_a_rotated_token_that_could_not_be_stored_is_served_and_stored_later(
    brokerd: Brokerd, serving: Serving, limited: Disk
) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=2)))
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    await give(brokerd, provider)
    first = await brokerd.get("app")
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            number = await caller.send("get", grant="app", refused=first)
            await gate.reached()
            limited(True)
            sent = provider.count("refresh")
            gate.release()
            error, token = await caller.answer(number)
    assert error is None
    await brokerd.until("app", lambda status: status["unstored"])
    # it lives for 2 s, and would have been renewed by now; but another rotation would have no journal
    await brokerd.until("app", lambda status: status["expires_at"] is None)
    error = await brokerd.error("get", grant="app", wait=0.1)
    assert error["code"] == "unavailable"
    assert provider.count("refresh") == sent
    provider.down = True  # else the kill could meet the next exchange, and use the token up
    limited(False)
    await brokerd.until("app", lambda status: not status["unstored"])
    await brokerd.kill()
    provider.down = False
    await brokerd.start()
    assert await brokerd.get("app") != token["value"]
    assert provider.statuses("refresh") == [200] * provider.count("refresh")
    assert provider.counts.families_killed == 0


async def test_a_revocation_that_could_not_be_stored_holds_all_the_same_and_is_stored_later(
    brokerd: Brokerd, serving: Serving, limited: Disk
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    limited(True)
    done = await brokerd.call("revoke", grant="app")
    assert (done["stored"], "could NOT be stored" in done["detail"]) == (False, True)
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert provider.counts.revoked == 2, "the provider can be told without a disk"
    limited(False)
    await brokerd.until("app", lambda status: not status["unstored"])
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert provider.counts.issued == 1


async def test_a_store_that_was_deleted_under_a_running_daemon_is_not_written_into_nothing(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"spends": FIVE["oauth2-password"], "issues": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("spends")
    await brokerd.get("issues")
    (brokerd.state / "brokerd.db").unlink()
    error = await brokerd.error("refresh", grant="spends", wait=1)
    assert (error["code"], "was deleted or replaced" in error["message"]) == ("unavailable", True)
    assert provider.count("refresh") == 0
    await brokerd.call("refresh", grant="issues")
    assert (await brokerd.status("issues"))["unstored"]
    assert "restart brokerd" in (await brokerd.call("status"))["daemon"]["store"]


# -- below


async def give(brokerd: Brokerd, provider: OAuth2) -> None:
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    await brokerd.call("import", grant="app", refresh_token=token.value)


@contextlib.contextmanager
def database(brokerd: Brokerd) -> Iterator[sqlite3.Connection]:
    """The store's file, changed behind a stopped daemon's back."""
    with contextlib.closing(sqlite3.connect(brokerd.state / "brokerd.db", isolation_level=None)) as file:
        yield file
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rows(file: sqlite3.Connection) -> list[tuple[object, ...]]:
    return file.execute("SELECT * FROM record ORDER BY name, fingerprint").fetchall()


def flip(file: sqlite3.Connection, name: str, place: int) -> None:
    sealed = bytearray(file.execute("SELECT sealed FROM record WHERE name = ?", (name,)).fetchone()[0])
    sealed[place] ^= 1
    file.execute("UPDATE record SET sealed = ? WHERE name = ?", (bytes(sealed), name))
