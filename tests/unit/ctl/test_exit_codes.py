# How brokerctl ends: exit codes, one line with a remedy on stderr, and silence when the reader is gone or the user
# interrupts.
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from brokerd_client import errors

from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run, program

CODES = {
    errors.UnknownGrant: 3,
    errors.Denied: 3,
    errors.Unavailable: 4,
    errors.Limit: 4,
    errors.Locked: 4,
    errors.NeedsLogin: 5,
    errors.Revoked: 5,
    errors.Misconfigured: 2,
    errors.BadRequest: 2,
    errors.Internal: 1,
}


@pytest.mark.parametrize("kind", CODES)
def test_each_error_has_its_exit_code_and_one_line_with_a_remedy(
    daemon: Daemon, brokerctl: Run, kind: type[errors.BrokerError]
) -> None:
    def fail(params: dict[str, Any]) -> Any:
        raise kind("it went wrong", grant="ix", retry_after=7 if kind is errors.Unavailable else None)

    daemon.answers["get"] = fail
    for words in (("get", "ix"), ("get", "ix", "--json")):
        done = brokerctl(*words)
        assert (done.returncode, done.stdout) == (CODES[kind], "")
        assert done.stderr.startswith("brokerctl: it went wrong")
        assert done.stderr.count("\n") == 1
    if kind is errors.Unavailable:
        assert done.stderr == "brokerctl: it went wrong; try again in 7 s\n"


def test_a_remedy_of_the_daemons_own_is_not_followed_by_another(daemon: Daemon, brokerctl: Run) -> None:
    def fail(params: dict[str, Any]) -> Any:
        raise errors.Revoked("ix was revoked; brokerctl import ix ends that")

    daemon.answers["get"] = fail
    assert brokerctl("get", "ix").stderr == "brokerctl: ix was revoked; brokerctl import ix ends that\n"


def test_a_message_cannot_steer_the_terminal(daemon: Daemon, brokerctl: Run) -> None:
    def fail(params: dict[str, Any]) -> Any:
        raise errors.Internal("a\x1b[2Jb\nc\u202ed")

    daemon.answers["get"] = fail
    line = brokerctl("get", "ix").stderr
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert line.count("\n") == 1


def test_no_daemon_is_6_and_says_where_it_looked(brokerctl: Run, tmp_path: Path) -> None:
    done = brokerctl("--socket", str(tmp_path / "none.sock"), "get", "ix")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"brokerctl: no socket at {tmp_path}/none.sock: is brokerd running?")


def test_something_else_at_the_socket_is_1(brokerctl: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def talk() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        done = brokerctl("--socket", path, "get", "ix")
        thread.join()
    assert done.returncode == 1
    assert "is not brokerd" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gte", "ix"], "no command 'gte', did you mean get?"),
        (["get"], "the following arguments are required: GRANT"),
        (["get", "ix", "--jsn"], "no option --jsn, did you mean --json?"),
        (["get", "ix", "--min-ttl", "soon"], "argument --min-ttl: expected a number of seconds"),
        (["get", "ix", "--min-ttl", "nan"], "argument --min-ttl: expected a number of seconds"),
        (["get", "ix", "--wait", "-1"], "argument --wait: expected a number of seconds"),
        (["get", "ix", "--json", "--header"], "not allowed with argument"),
        (["get", "ix", "mail"], "expected nothing after GRANT"),
        (["get", "ix", "--refused", "s3cret"], "--refused reads the token from stdin"),
        (["get", "ix", "--refused", "-"], "--refused reads the token from stdin"),
        (["refresh", "ix", "mail"], "expected nothing more on the command line"),
        (["explain", "ix", "--user", "portal"], "no option --user, did you mean --as?"),
        (["exec", "ix", "--env", "A B", "--", "true"], "=field:NAME, found 'A B'"),
        (["exec", "ix", "--env", "A=s3cret", "--", "true"], "=field:NAME, found 'A=…'"),
        (["get", "ix", "--field", "a", "--json"], "not allowed with argument"),
        (["exec", "ix", "env"], "expected -- and the command to run"),
        (["exec", "ix"], "expected -- and the command to run"),
        (["exec", "ix", "--"], "expected -- and the command to run"),
        (["watch"], "the following arguments are required: GRANT"),
        (["explain", "ix", "--pid", "s3cret"], "argument --pid: expected a number"),
        (["key", "s3cret"], "argument rotate: expected one of rotate"),
        (["recipe", "s3cret"], "expected one of list, show, check, try"),
        (["login", "ix", "--port", "s3cret"], "argument --port: expected a port number"),
        (["audit", "tail", "-n", "s3cret"], "argument -n: expected a number"),
        (["completion", "ksh"], "argument shell: expected one of bash, zsh, fish"),
        (["--sock", "x", "get", "ix"], "no command 'x'"),
        (["--verbose"], "no option --verbose"),
        (["--socket"], "expected one argument"),
        (["import", "ix", "s3cret"], "the refresh token is read from stdin"),
        (["import", "ix", "--token=s3cret"], "no option --token"),
        (["get", "x" * 70_000], "at most 65536 bytes"),
    ],
)
def test_a_wrong_command_line_is_2_and_says_what_would_be_right(
    daemon: Daemon, brokerctl: Run, words: list[str], expected: str
) -> None:
    done = brokerctl(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert done.stderr.startswith("brokerctl: ")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr
    assert daemon.calls == []


def test_a_grant_that_is_not_text_is_2(daemon: Daemon) -> None:
    done = subprocess.run([*program(), "get", b"\xff"], capture_output=True, env=dict(os.environ))
    assert done.returncode == 2
    assert b"UTF-8" in done.stderr


def test_a_fault_of_its_own_is_1_and_shows_nothing_of_what_it_held(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["refresh"] = lambda params: {"s3cret": 1}
    done = brokerctl("refresh", "ix")
    assert done.returncode == 1
    assert done.stderr.startswith("brokerctl: a bug in brokerctl: KeyError in refresh")
    assert "s3cret" not in done.stderr


def test_alone_it_prints_help(brokerctl: Run) -> None:
    done = brokerctl()
    assert (done.returncode, done.stderr) == (0, "")
    assert "brokerctl [-h] [--config FILE] [--socket PATH] [--state-dir DIR] [--version] COMMAND" in done.stdout
    assert "keygen" in done.stdout


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["get", "-h"], ["exec", "-h"], ["-h", "get"]])
def test_help_is_0(brokerctl: Run, words: list[str]) -> None:
    done = brokerctl(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("words", [["get", "ix"], ["get", "ix", "--json"], ["--help"], ["status"], ["completion"]])
def test_a_reader_that_went_away_is_not_worth_a_word(daemon: Daemon, words: list[str]) -> None:
    daemon.answers["status"] = lambda params: {
        "daemon": {"version": "0", "pid": 1, "started_at": 0, "locked": False, "store": None},
        "grants": [],
    }
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*program(), *words], stdout=write, stderr=subprocess.PIPE, env=dict(os.environ))
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode == 141 or (done.returncode == 0 and words == ["--help"])  # argparse swallows it


def test_a_closed_stdout_or_stderr_takes_nothing_else_in_its_place(daemon: Daemon) -> None:
    command = " ".join(program())
    done = subprocess.run(f"{command} get ix >&-", shell=True, capture_output=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (141, b"")
    done = subprocess.run(f"{command} get nope 2>&-", shell=True, capture_output=True, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (3, b"")


def test_a_full_disk_is_said(daemon: Daemon) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*program(), "get", "ix"], stdout=full, stderr=subprocess.PIPE, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr == b"brokerctl: cannot write to standard output: No space left on device; check where it goes\n"


def test_ctrl_c_is_130_and_quiet(daemon: Daemon) -> None:
    over = threading.Event()
    daemon.answers["get"] = lambda params: over.wait(10) and daemon.token(params)
    with subprocess.Popen(
        [*program(), "get", "ix"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        daemon.wait_for_calls(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    over.set()
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("options", "cleans_up"), [((), False), (("--json",), True)])
def test_a_plain_get_ends_without_the_interpreters_clean_up(
    daemon: Daemon, options: tuple[str, ...], cleans_up: bool
) -> None:
    call = "import atexit, sys, brokerd.ctl; atexit.register(print, 'cleaned up'); sys.exit(brokerd.ctl.script())"

    def ended(grant: str) -> tuple[int, str]:
        command = [sys.executable, "-c", call, "get", grant, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("cleaned up" in done.stdout) is cleans_up
        return done.returncode, done.stdout

    code, said = ended("ix")
    assert (code, daemon.token({"grant": "ix"})["value"] in said) == (0, True)

    def fail(params: dict[str, Any]) -> Any:
        raise errors.Revoked("it went wrong")

    daemon.answers["get"] = fail
    assert ended("ix")[0] == CODES[errors.Revoked]
