from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from brokerd_client import UnknownGrant

from tests.client.daemon import Daemon
from tests.ctl.conftest import Run, program

GRANT = {
    "name": "ix-prod",
    "provider": "ix",
    "state": "ready",
    "issued_at": 1.5,
    "expires_at": None,
    "next_renewal_at": None,
    "refresh_expires_at": None,
    "generation": 3,
    "renewals": 2,
    "failures": 0,
    "interrupted": None,
    "unstored": False,
    "last_error": None,
    "remedy": None,
    "pending_revocations": 0,
}
DAEMON = {"version": "0.1.0", "pid": 42, "started_at": 1.5, "locked": False, "store": None}


def answer(daemon: Daemon, *grants: dict[str, Any], **about: Any) -> dict[str, Any]:
    found = {"daemon": {**DAEMON, **about}, "grants": [{**GRANT, **grant} for grant in grants]}
    daemon.answers["status"] = lambda params: found
    return found


def test_status_json_is_the_daemons_object(daemon: Daemon, brokerctl: Run) -> None:
    found = answer(daemon, {}, {"name": "b"})
    done = brokerctl("status", "--json")
    assert json.loads(done.stdout) == found
    assert done.stdout.count("\n") == 1
    assert daemon.calls == [("status", {})]


def test_status_asks_for_the_grants_that_are_named(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {})
    brokerctl("status", "ix-prod", "b")
    assert daemon.calls == [("status", {"grants": ["ix-prod", "b"]})]


def test_the_table_counts_down(daemon: Daemon, brokerctl: Run) -> None:
    now = time.time()
    answer(daemon, {"expires_at": now + 3601.5, "next_renewal_at": now + 90061})
    done = brokerctl("status")
    assert done.stderr == ""
    heading, row, about = done.stdout.splitlines()
    assert heading.split() == ["GRANT", "PROVIDER", "STATE", "EXPIRES", "NEXT", "RENEWAL", "NOTES"]
    assert row.split()[:3] == ["ix-prod", "ix", "ready"]
    assert "in 1h 0m" in row or "in 59m 59s" in row
    assert "in 1d 1h" in row
    assert about.startswith("brokerd 0.1.0, pid 42, started ")
    assert "\x1b" not in done.stdout


def test_the_table_names_every_trouble(daemon: Daemon, brokerctl: Run) -> None:
    now = time.time()
    trouble = {
        "state": "retrying",
        "failures": 4,
        "failing_since": now - 200,
        "interrupted": now - 60,
        "unstored": True,
        "last_error": "ix: [red]503[/red] \x1b[2J no",
        "remedy": "brokerctl import ix-prod",
        "pending_revocations": 2,
        "expires_at": now - 5,
        "refresh_expires_at": now + 200,
    }
    since = {"store_since": now - 200, "resealing_since": now - 300}
    answer(daemon, trouble, store="the disk is full", locked=True, **since)
    text = brokerctl("status").stdout
    for words in (
        "retrying",
        "s ago",
        "in memory only",
        "an exchange is unanswered for 1 min, since ",
        "2 still to be revoked",
        "refresh token expires in 3m",
        "failing for 3 min, since ",
        ": 4 failures, the last: ix: [red]503[/red]",
        "to fix: brokerctl import ix-prod",
        "store: the disk is full (failing for 3 min, since ",
        "key rotate --full has not come to its end for 5 min, since ",
        "the keys are locked and nothing is served; to serve again: brokerctl unlock",
    ):
        assert words in text
    assert "\x1b" not in text


def test_a_revoked_grant_says_what_brings_it_back(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {"state": "revoked", "expires_at": None, "next_renewal_at": None})
    words = "nothing is served; to use it again: brokerctl login ix-prod or brokerctl import ix-prod"
    assert words in brokerctl("status").stdout
    answer(daemon, {"state": "revoked", "revoked_at": time.time() - 130})
    assert re.search(rf"revoked for 2 min, since [0-9: -]+; {words}", brokerctl("status").stdout)


def test_without_grants_it_says_so(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon)
    assert "no grants that you may see" in brokerctl("status").stdout


def test_an_unknown_grant_is_3(daemon: Daemon, brokerctl: Run) -> None:
    def fail(params: dict[str, Any]) -> Any:
        raise UnknownGrant("no grant nope", grant="nope")

    daemon.answers["status"] = fail
    assert brokerctl("status", "nope").returncode == 3


def test_a_grant_that_is_not_shown_to_root_is_3_and_the_others_are_shown(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {})
    for form in ((), ("--json",), ("--names",)):
        done = brokerctl("status", "ix-prod", "nope", "nope", *form)
        assert (done.returncode, done.stderr.count("there is no grant 'nope' that you may see;")) == (3, 1)
        assert "ix-prod" in done.stdout
    answer(daemon)
    assert brokerctl("status", "nope").stdout == "", "one sentence about it is enough"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_watch_looks_again_until_it_is_interrupted(daemon: Daemon, options: list[str]) -> None:
    answer(daemon, {})
    with subprocess.Popen(
        [*program(), "status", "--watch", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    ) as process:
        daemon.wait_for_calls(3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert out.count(b"ix-prod") >= 2


def test_on_a_terminal_states_are_coloured_and_a_restart_is_lived_through(daemon: Daemon) -> None:
    answer(daemon, {"state": "needs_login"})
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [*program(), "status", "--watch"], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env
    ) as process:
        os.close(theirs)
        daemon.wait_for_calls(1)
        screen = read_until(ours, b"needs_login")
        assert b"\x1b[31mneeds_login" in screen
        daemon.stop()
        screen += read_until(ours, b"no socket at")
        daemon.start()
        screen += read_until(ours, b"needs_login")
        process.send_signal(signal.SIGINT)
        screen += read_until(ours, b"")
        process.wait(30)
        assert process.stderr
        assert process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == 130


def read_until(terminal: int, words: bytes) -> bytes:
    """What appears on the terminal until those words do; without words, until its program has closed it."""
    screen = b""
    while not words or words not in screen:
        try:
            screen += os.read(terminal, 10_000)
        except OSError:  # EIO: nobody has it open any more
            break
    return screen


def test_status_verify_asks_about_each_grant_and_says_what_it_heard(daemon: Daemon, brokerctl: Run) -> None:
    def verify(params: dict[str, Any]) -> dict[str, Any]:
        if params["grant"] == "b":
            raise UnknownGrant("no grant 'b' that you may use", grant="b")
        return {**params, "access_token": True, "refresh_token": None, "detail": "access token: active"}

    answer(daemon, {}, {"name": "b"})
    daemon.answers["verify"] = verify
    lines = brokerctl("status", "--verify").stdout.splitlines()
    assert "access token: active" in lines[1]
    assert "no grant 'b' that you may use" in lines[2]
    verified = [each["verified"] for each in json.loads(brokerctl("status", "--verify", "--json").stdout)["grants"]]
    assert [each["access_token"] for each in verified] == [True, None]
    assert brokerctl("status", "--verify", "--watch").returncode == 2


def test_scopes_that_were_not_granted_are_a_note(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {"scope": ["read"], "scope_dropped": ["write", "admin"]})
    assert "its provider did not grant the scope write admin" in brokerctl("status").stdout
