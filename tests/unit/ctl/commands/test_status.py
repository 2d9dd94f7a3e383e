from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from typing import Any

import pytest
from brokerd_client import UnknownGrant

from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run, program

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
    heading, row, about, counts = done.stdout.splitlines()
    assert heading.split() == ["GRANT", "STATE", "TOKEN", "NEXT", "IN", "PROVIDER"]
    assert row.split()[1:3] == ["ix-prod", "ready"]
    assert "1h 0m" in row or "59m 59s" in row
    assert "1d 1h" in row
    assert about.startswith("brokerd 0.1.0, pid 42, started ")
    assert counts == "1 grant: 1 ready"
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
        "next_renewal_at": now + 300,
    }
    since = {"store_since": now - 200, "resealing_since": now - 300}
    answer(daemon, trouble, store="the disk is full", locked=True, **since)
    text = brokerctl("status").stdout
    for words in (
        "retrying",
        "no token",
        "in memory only",
        "the answer to an exchange is missing for 1 min, since ",
        "2 not yet revoked",
        "failing for 3 min, since ",
        ": 4 failures, the last: ix: [red]503[/red]",
        "to fix: brokerctl import ix-prod",
        "store: the disk is full (failing for 3 min, since ",
        "key rotate --full is not finished for 5 min, since ",
        "brokerd is locked and serves nothing\n  to unlock: brokerctl unlock",
    ):
        assert words in text
    assert "\x1b" not in text


def test_a_revoked_grant_says_what_brings_it_back(daemon: Daemon, brokerctl: Run) -> None:
    remedy = "brokerctl import ix-prod"
    answer(daemon, {"state": "revoked", "expires_at": None, "next_renewal_at": None, "remedy": remedy})
    words = "nothing is served\n    to use it again: brokerctl import ix-prod\n"
    assert words in brokerctl("status").stdout
    answer(daemon, {"state": "revoked", "revoked_at": time.time() - 130, "remedy": remedy})
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
    before = termios.tcgetattr(theirs)
    with watching(theirs) as process:
        screen = read_until(ours, b"needs login")
        assert b"\x1b[31mneeds login" in screen
        daemon.stop()
        screen += read_until(ours, b"no socket at")
        daemon.start()
        screen += read_until(ours, b"1 needs login")
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr and process.stderr.read()) == (130, b"")
    assert termios.tcgetattr(theirs) == before, "the terminal is left as it was found"
    screen += read_until(ours, b"\x1b[?1049l")
    assert screen.count(b"\x1b[?1049h") == 1, "one alternate screen"
    assert b"\x1b[2J" not in screen.partition(b"needs login")[2], "nothing is cleared, so nothing flickers"
    os.close(ours)
    os.close(theirs)


def test_on_a_terminal_keys_scroll_and_q_ends(daemon: Daemon) -> None:
    answer(daemon, *({"name": f"grant-{number:03}"} for number in range(100)), {"name": "z", "state": "needs_login"})
    ours, theirs = pty.openpty()
    with watching(theirs) as process:
        screen = read_until(ours, b"lines 1 to 20 of 101")
        assert b"grant-000" in screen
        assert b"101 grants: 100 ready, 1 needs login" in screen + read_until(ours, b"1 needs login")
        os.write(ours, b"\x1b[6~")
        assert b"grant-020" in read_until(ours, b"lines 20 to 39 of 101")
        os.write(ours, b"G")
        assert b"grant-099" in read_until(ours, b"lines 82 to 101 of 101")
        os.write(ours, b"q")
        assert process.wait(30) == 0
    os.close(ours)
    os.close(theirs)


def watching(terminal: int) -> subprocess.Popen[bytes]:
    """brokerctl status --watch on a terminal of 24 lines with 100 columns."""
    termios.tcsetwinsize(terminal, (24, 100))
    env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "LC_ALL")}
    command = [*program(), "status", "--watch"]
    return subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=env)


def read_until(terminal: int, words: bytes) -> bytes:
    """What appears on the terminal until those words do."""
    screen = b""
    while words not in screen:
        assert select.select([terminal], [], [], 20)[0], f"{words!r} did not come after: {screen[-2000:]!r}"
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
    assert "access token: active" in lines[lines.index(next(each for each in lines if "ix-prod" in each)) + 1]
    assert "no grant 'b' that you may use" in lines[lines.index(next(each for each in lines if each[2:4] == "b ")) + 1]
    verified = [each["verified"] for each in json.loads(brokerctl("status", "--verify", "--json").stdout)["grants"]]
    assert [each["access_token"] for each in verified] == [True, None]
    assert brokerctl("status", "--verify", "--watch").returncode == 2


def test_scopes_that_were_not_granted_are_a_note(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {"scope": ["read"], "scope_dropped": ["write", "admin"]})
    assert "the provider did not grant the scope write admin" in brokerctl("status").stdout


def test_one_grant_is_asked_for_with_its_history_and_shown_with_it(daemon: Daemon, brokerctl: Run) -> None:
    row = {"at": time.time() - 60, "last": time.time(), "count": 3, "seconds": 0.25, "operation": "renew"}
    row |= {"outcome": "postponed", "reason": "connection \x1b[2J refused", "request_id": None, "target": None}
    answer(daemon, {"history": [row], "next": {"operation": "renew", "at": None, "target": None, "detail": "later"}})
    text = brokerctl("status", "ix-prod").stdout
    assert daemon.calls == [("status", {"grants": ["ix-prod"], "history": True})]
    for words in (
        "ix-prod: ready",
        "renew: later",
        "3 times since ",
        "connection \N{REPLACEMENT CHARACTER}[2J refused",
    ):
        assert words in text


def test_an_older_daemon_without_a_history_is_shown_as_well(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {})
    assert "ix-prod: ready" in brokerctl("status", "ix-prod").stdout


def test_problems_alone(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon, {}, {"name": "b", "state": "needs_login"})
    text = brokerctl("status", "--problems").stdout
    assert ("ix-prod" in text, text.splitlines()[-1]) == (False, "2 grants: 1 ready, 1 needs login")
    assert brokerctl("status", "--problems", "--names").stdout == "b\n"
    assert [each["name"] for each in json.loads(brokerctl("status", "--problems", "--json").stdout)["grants"]] == ["b"]
    answer(daemon, {})
    assert "no grant has a problem" in brokerctl("status", "--problems").stdout


@pytest.mark.parametrize(
    ("grant", "about", "code"),
    [
        ({}, {}, 0),
        ({"state": "revoked", "issued_at": None}, {}, 0),
        ({"state": "retrying"}, {}, 4),
        ({"unstored": True}, {}, 4),
        ({"state": "retrying", "issued_at": None}, {}, 5),
        ({"state": "needs_login"}, {}, 5),
        ({"state": "misconfigured"}, {}, 5),
        ({}, {"locked": True}, 5),
        ({}, {"audit": "the disk is full"}, 5),
        ({}, {"resealing_since": 5.0}, 0),
    ],
)
def test_trouble_is_an_exit_code_if_that_is_asked_for(
    daemon: Daemon, within: Run, grant: dict[str, Any], about: dict[str, Any], code: int
) -> None:
    answer(daemon, {}, {"name": "b", **grant}, **about)
    assert within("status", "--exit-code").returncode == code
    assert within("status", "--exit-code", "--json").returncode == code
    assert within("status").returncode == 0


def test_a_provider_that_is_down_is_an_exit_code_and_is_shown(daemon: Daemon, within: Run) -> None:
    found = answer(daemon, {})
    found["providers"] = [
        {"name": "ix", "failing_since": time.time() - 60, "breaker_open_until": None, "cause": "limited"}
    ]
    done = within("status", "--exit-code")
    assert done.returncode == 4
    assert "provider ix: failing for 1 min, since " in done.stdout


def test_watch_has_no_exit_code(within: Run, daemon: Daemon) -> None:
    done = within("status", "--exit-code", "--watch")
    assert (done.returncode, "leave one of them out" in done.stderr) == (2, True)
