# What root reads in a state directory or a configuration that is a user's: the user may have put links there, to what
# is not theirs, may exchange them at any moment, and may name commands.
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from tests import forked
from tests.did_not_run import did_not_run
from tests.forked import ROOT
from tests.scenario.audit.logs import brokerctl, files
from tests.scenario.daemon.harness import Brokerd

OTHER = 60_978  # a user
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
HERE = -100  # AT_FDCWD
LINE = '{"seq":1,"time":1,"event":"test-only-precious","prev":"0"}\n'


async def test_root_shows_nobody_the_file_that_a_link_leads_to(brokerd: Brokerd, as_root: None, folder: Path) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    assert await brokerd.stop() == 0
    roots = folder / "roots"
    roots.write_text(LINE)
    (log,) = files(brokerd)
    log.unlink()
    log.symlink_to(roots)
    assert "test-only-precious" in brokerctl(brokerd, "tail")[1], "his own link is his to follow"
    roots.chmod(0o600)
    for path in (brokerd.state, *brokerd.state.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
    for action in ("tail", "verify"):
        status, said = brokerctl(brokerd, action)
        assert (status, "you may not read" in said) == (2, True), action
        assert "test-only-precious" not in said


async def test_root_runs_no_command_of_a_users_configuration(brokerd: Brokerd, as_root: None, folder: Path) -> None:
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in ROOT.parents):
        did_not_run("A COMMAND AS ANOTHER USER", f"other users cannot read {ROOT}")
    seen, script = folder / "seen", folder / "key-command"
    seen.touch()
    seen.chmod(0o666)
    script.write_text(f"#!/bin/sh\n{{ id -u; id -g; id -G; ps -o tty= -p $$; }} >{seen}\necho no-key\n")
    script.chmod(0o755)
    brokerd.configure({}, {})
    await brokerd.start()
    assert await brokerd.stop() == 0
    brokerd.configure({}, {}, key={"command": [script]})
    for path in (brokerd.config, brokerd.state, *brokerd.state.rglob("*")):
        os.chown(path, OTHER, OTHER)
    status, said = brokerctl(brokerd, "verify")
    assert (status, "daemon.key" in said) == (2, True), said
    assert await trio.Path(seen).read_text() == f"{OTHER}\n{OTHER}\n{OTHER}\n?\n"


async def test_root_reads_no_secret_file_for_a_user_whose_configuration_names_it(
    brokerd: Brokerd, as_root: None, folder: Path
) -> None:
    roots = folder / "roots"
    roots.write_text("test-only-secret")
    roots.chmod(0o600)
    app = {"grant_type": "client_credentials", "credentials": {"client_id": "app", "client_secret": {"file": roots}}}
    op = {"dialect": "oauth2", "token_url": "https://op.example/token"}
    brokerd.configure({"app": {"provider": "op", **app}}, {"op": op})
    for owner, reads in ((0, True), (OTHER, False)):
        os.chown(brokerd.config, owner, owner)
        done = await trio.to_thread.run_sync(forked.brokerctl, "doctor", "--offline", "--config", brokerd.config)
        assert ("ok       secrets" in done.stdout) == reads, done.stdout


async def test_check_as_root_reads_no_secret_file_for_a_user_whose_configuration_names_it(
    brokerd: Brokerd, as_root: None, folder: Path
) -> None:
    roots = folder / "roots"
    roots.write_text(" test-only-secret")  # the blank is what --check warns of, where it can read the file
    roots.chmod(0o600)
    app = {"grant_type": "client_credentials", "credentials": {"client_id": "app", "client_secret": {"file": roots}}}
    brokerd.configure(
        {"app": {"provider": "op", **app}}, {"op": {"dialect": "oauth2", "token_url": "https://op.example/token"}}
    )
    check = [sys.executable, "-m", "brokerd.daemon.main", "--check", "--config", str(brokerd.config)]
    for owner, reads in ((0, True), (OTHER, False)):
        os.chown(brokerd.config, owner, owner)
        done = await trio.run_process(check, check=False, capture_stdout=True, capture_stderr=True)
        assert (b"blank" in done.stderr) == reads, done.stderr


@contextlib.contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """A process of another user that exchanges the two, as fast as it can, for a minute at most."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            os.setresuid(OTHER, OTHER, OTHER)
            libc, names = ctypes.CDLL(None), (bytes(one), bytes(other))
            while libc.renameat2(HERE, names[0], HERE, names[1], EXCHANGE) == 0:
                pass
            print("it could not exchange them", file=sys.stderr)
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it exchanges them all the time"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


async def test_root_is_not_led_elsewhere_by_who_exchanges_a_folder_and_a_link(
    brokerd: Brokerd, as_root: None, folder: Path
) -> None:
    """In a folder of their own and in a sticky one, a folder with a link in it is exchanged with a link to one of
    root's folders, so that one look finds root's and the next one the user's."""
    roots, decoy = folder / "roots", folder / "decoy"
    roots.write_text(LINE)
    roots.chmod(0o600)
    (decoy / "audit").mkdir(parents=True)
    (decoy / "audit/audit-0001.jsonl").write_text(LINE.replace("precious", "decoy"))
    for name, mode, owner in (("theirs", 0o755, OTHER), ("sticky", 0o1777, 0)):
        place = folder / name
        state = place / "state"
        (state / "audit").mkdir(parents=True)
        (state / "audit/audit-0001.jsonl").symlink_to(roots)
        (place / "link").symlink_to(decoy)
        place.chmod(mode)
        os.chown(place, owner, owner)
        for path in (state, state / "audit", state / "audit/audit-0001.jsonl", place / "link"):
            os.chown(path, OTHER, OTHER, follow_symlinks=False)
        brokerd.state = state
        brokerd.configure({}, {})
        with exchanging(state, place / "link"):
            said = [brokerctl(brokerd, "tail") for _ in range(25)]
        assert not any("test-only-precious" in words for _, words in said), name
        assert len({status for status, _ in said}) == 2, "both were met"
