# Backups are taken while the daemon serves. Nobody can read one without the key. A restored backup is a copy, which
# sends no stored token until an operator adopts it.
from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from brokerd.ctl.commands.backup import _written
from brokerd.ctl.terminal import Failed
from tests import forked
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2

REFUSED = 2  # exit status
OTHER = 60_978  # a user


async def brokerctl(brokerd: Brokerd, *words: object) -> tuple[int, str]:
    done = await trio.to_thread.run_sync(forked.brokerctl, "--socket", brokerd.socket, *map(str, words))
    return done.returncode, done.stdout + done.stderr


async def test_a_backup_comes_back_as_a_copy_that_spends_nothing_until_it_is_adopted(
    brokerd: Brokerd, serving: Serving, folder: Path
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    file = folder / "backup"
    assert (await brokerctl(brokerd, "backup", file))[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert not any(secret.encode() in content for secret in (*provider.secret_values(), value, brokerd.key.read_text()))
    await brokerd.call("refresh", grant="app")
    restore = ("restore", file, "--state-dir", brokerd.state)
    status, said = await brokerctl(brokerd, *restore)
    assert (status, "in use by the brokerd with pid" in said) == (REFUSED, True)
    await brokerd.stop()
    assert (await brokerctl(brokerd, *restore, "--force"))[0] == 0
    assert sum(".before-" in name for name in brokerd.bytes_of_state()) >= 1
    await brokerd.start()
    assert await brokerd.get("app") == value, "what lives in it is served"
    requests = len(provider.statuses())
    assert "brokerctl adopt" in (await brokerd.error("refresh", grant="app"))["message"]
    assert len(provider.statuses()) == requests
    await brokerd.call("adopt")


async def test_a_backup_in_pieces_is_of_one_moment_while_others_write(
    brokerd: Brokerd, serving: Serving, folder: Path
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection, connection:
        connection.execute("INSERT INTO metadata VALUES ('nobody', zeroblob(1500000))")
    async with brokerd.caller() as caller:
        first = await caller.call("backup")
        pieces = [base64.b64decode(first["data"])]
        while (done := sum(map(len, pieces))) < first["size"]:
            with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection, connection:
                connection.execute("UPDATE metadata SET sealed = zeroblob(2000000)")
            pieces.append(base64.b64decode((await caller.call("backup", offset=done))["data"]))
    assert len(pieces) > 2
    content = b"".join(pieces)
    assert hashlib.sha256(content).hexdigest() == first["sha256"]
    (folder / "copy.db").write_bytes(content)
    with closing(sqlite3.connect(folder / "copy.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM record").fetchone() == (1,)
    await brokerd.call("lock")
    assert (await brokerd.call("backup"))["size"] > 0, "it needs no key"


async def test_only_administrators_take_backups(brokerd: Brokerd, other_user: User) -> None:
    brokerd.configure({}, {}, socket_mode="0666")
    await brokerd.start()
    assert (await other_user.call(brokerd, "backup"))["code"] == "denied"


async def test_root_that_backs_up_into_a_users_folder_follows_none_of_their_links(
    brokerd: Brokerd, as_root: None, folder: Path
) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    theirs, roots = folder / "theirs", folder / "roots"
    roots.mkdir(mode=0o755)
    theirs.mkdir(mode=0o700)
    (theirs / "link").symlink_to(roots)
    os.chown(theirs, OTHER, OTHER)
    status, said = await brokerctl(brokerd, "backup", theirs / "link/backup")
    assert (status, "Permission denied" in said) == (REFUSED, True)
    assert not list(roots.iterdir()), "nothing is made where a link of theirs leads"
    assert (await brokerctl(brokerd, "backup", theirs / "backup"))[0] == 0
    assert ((theirs / "backup").stat().st_uid, (theirs / "backup").stat().st_mode & 0o777) == (OTHER, 0o600)
    theirs.chmod(0o777)
    os.chown(theirs, 0, 0)
    status, said = await brokerctl(brokerd, "backup", theirs / "new")
    assert (status, "can be written by others than root" in said) == (REFUSED, True)


def test_a_backup_that_fails_is_taken_away_from_its_own_folder_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it is written, somebody exchanges the folder for a link to another one with a file of that name."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "backup").write_text("test-only-precious")

    def exchange(_descriptor: int) -> None:
        (tmp_path / "mine").rename(tmp_path / "away")
        (tmp_path / "mine").symlink_to(tmp_path / "precious")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", exchange)
    with pytest.raises(Failed, match="No space left"):
        _written(tmp_path / "mine" / "backup", io.BytesIO(b"copy"), 4)
    assert not list((tmp_path / "away").iterdir())
    assert (tmp_path / "precious" / "backup").read_text() == "test-only-precious"


async def test_root_that_restores_into_a_users_directory_follows_none_of_their_links(
    brokerd: Brokerd, as_root: None, folder: Path
) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    file, state, roots = folder / "backup", folder / "theirs", folder / "roots"
    await brokerctl(brokerd, "backup", file)
    roots.write_text("test-only-precious")
    roots.chmod(0o600)
    state.mkdir(mode=0o700)
    (state / "lock").symlink_to(roots)
    os.chown(state, OTHER, OTHER)
    restore = ("restore", file, "--state-dir", state)
    status, said = await brokerctl(brokerd, *restore)
    assert (status, "Permission denied" in said) == (REFUSED, True)
    found = roots.stat()
    assert (roots.read_text(), found.st_uid) == ("test-only-precious", 0), "neither written nor given away"
    (state / "lock").unlink()
    assert (await brokerctl(brokerd, *restore))[0] == 0
    assert {path.stat().st_uid for path in state.iterdir()} == {OTHER}, "it is all theirs"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (state / "link").symlink_to(elsewhere)
    os.chown(state / "link", OTHER, OTHER, follow_symlinks=False)
    status, said = await brokerctl(brokerd, "restore", file, "--state-dir", state / "link/new/state")
    assert (status, "Permission denied" in said) == (REFUSED, True)
    assert not list(elsewhere.iterdir()), "nothing is made where a link of theirs leads"
