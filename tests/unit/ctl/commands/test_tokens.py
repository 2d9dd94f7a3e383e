# brokerctl get, exec and watch: the real program against a small daemon.
from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run, program


def test_get_prints_the_token_and_a_newline_and_nothing_else(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("get", "ix")
    assert (done.returncode, done.stdout, done.stderr) == (0, "token-of-ix\n", "")
    assert daemon.calls == [("get", {"grant": "ix"})]


def test_get_passes_its_options_on(daemon: Daemon, brokerctl: Run) -> None:
    words = ("--min-ttl", "60", "--wait", "2.5", "--scope", "a", "--scope", "b")
    words = (*words, "--audience", "x", "--resource", "urn:r")
    assert brokerctl("get", *words, "ix").stdout == "token-of-ix\n"
    params = {"grant": "ix", "min_ttl": 60, "wait": 2.5, "scope": ["a", "b"], "audience": "x", "resource": "urn:r"}
    assert daemon.calls == [("get", params)]


def test_get_sends_the_token_that_was_refused_from_stdin(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("get", "ix", "--refused", input="token-that-was-refused\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "token-of-ix\n", "")
    assert daemon.calls == [("get", {"grant": "ix", "refused": "token-that-was-refused"})]
    assert "expected a refused token on stdin" in brokerctl("get", "ix", "--refused", input="").stderr


def test_get_json_is_the_contracts_object(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("get", "ix", "--json")
    assert json.loads(done.stdout) == {
        "value": "token-of-ix",
        "token_type": "Bearer",
        "expires_at": 2e9,
        "grant": "ix",
    }


def test_get_header_is_a_line_for_curl(daemon: Daemon, brokerctl: Run) -> None:
    assert brokerctl("get", "ix", "--header").stdout == "Authorization: Bearer token-of-ix\n"
    daemon.answers["get"] = lambda params: {**daemon.token(params), "present": "X-Key: {access_token}"}
    assert brokerctl("get", "--header", "ix").stdout == "X-Key: token-of-ix\n"


def test_a_token_that_is_not_ascii_is_printed_as_it_is_in_every_locale(
    daemon: Daemon, brokerctl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    daemon.answers["get"] = lambda params: {**daemon.token(params), "value": "tökén"}
    assert brokerctl("get", "ix", text=False).stdout == "tökén\n".encode()


def test_the_socket_can_be_named_before_the_command(
    daemon: Daemon, brokerctl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKERD_SOCKET", "/nowhere")
    assert brokerctl("--socket", str(daemon.path), "get", "ix").stdout == "token-of-ix\n"
    assert brokerctl("get", "ix").returncode == 6


def test_exec_gives_the_token_to_the_command_alone(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("exec", "ix", "--", "sh", "-c", 'echo "$ACCESS_TOKEN" "$@"', "sh", "--", "-x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "token-of-ix -- -x\n", "")


def test_exec_names_the_variable_as_it_is_told(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("exec", "ix", "--env", "IX_TOKEN", "--", "sh", "-c", 'echo "$IX_TOKEN ${ACCESS_TOKEN-none}"')
    assert done.stdout == "token-of-ix none\n"


def test_exec_ends_as_the_command_ends(daemon: Daemon, brokerctl: Run) -> None:
    assert brokerctl("exec", "ix", "--", "sh", "-c", "exit 77").returncode == 77


def test_exec_hands_down_neither_the_socket_nor_ignored_signals(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("exec", "ix", "--", "sh", "-c", "ls -l /proc/self/fd; grep SigIgn /proc/self/status")
    assert "socket:" not in done.stdout
    ignored = int(done.stdout.rpartition("SigIgn:")[2], 16)
    assert not ignored & 1 << 12  # SIGPIPE is the thirteenth


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [(["/no/such/program"], 127, "command not found"), (["/etc/hostname"], 126, "cannot be run")],
)
def test_exec_of_what_cannot_be_run_ends_as_in_a_shell(
    daemon: Daemon, brokerctl: Run, command: list[str], code: int, words: str
) -> None:
    done = brokerctl("exec", "ix", "--", *command)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_exec_says_what_to_do_with_a_token_that_no_variable_can_hold(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["get"] = lambda params: {**daemon.token(params), "value": "x" * 256 * 1024}
    done = brokerctl("exec", "ix", "--", "true")
    assert (done.returncode, done.stdout) == (126, "")
    assert "a variable has room for 128 KiB: have the program ask for the token itself" in done.stderr
    assert "xxxx" not in done.stderr


def test_exec_runs_nothing_without_a_token(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("exec", "nope", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (3, "")


FIELDS = {"access_key_id": "key-1", "note": "two\nlines"}


def with_fields(daemon: Daemon) -> None:
    daemon.answers["get"] = lambda params: {**daemon.token(params), "fields": FIELDS}


def test_get_prints_one_field_or_all_as_json(daemon: Daemon, brokerctl: Run) -> None:
    with_fields(daemon)
    assert brokerctl("get", "ix", "--field", "access_key_id").stdout == "key-1\n"
    assert brokerctl("get", "ix", "--field", "note").stdout == "two\nlines\n"
    assert json.loads(brokerctl("get", "ix", "--json").stdout)["fields"] == FIELDS


def test_a_field_that_is_not_there_is_an_error_that_names_those_that_are(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("get", "ix", "--field", "url")
    assert (done.returncode, done.stdout) == (2, "")
    assert "ix: its token has no field 'url'; it has: none; the grant or its recipe names them in fields" in done.stderr
    with_fields(daemon)
    for words in (("get", "ix", "--field", "url"), ("exec", "ix", "--env", "A=field:url", "--", "echo", "ran")):
        done = brokerctl(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "ix: its token has no field 'url'; it has: access_key_id, note" in done.stderr


def test_exec_puts_token_and_fields_into_the_variables_that_it_is_told(daemon: Daemon, brokerctl: Run) -> None:
    with_fields(daemon)
    variables = ("--env", "AWS_SESSION_TOKEN", "--env", "AWS_ACCESS_KEY_ID=field:access_key_id")
    print_them = 'echo "$AWS_SESSION_TOKEN $AWS_ACCESS_KEY_ID ${ACCESS_TOKEN-none}"'
    assert brokerctl("exec", "ix", *variables, "--", "sh", "-c", print_them).stdout == "token-of-ix key-1 none\n"


@pytest.mark.parametrize("value", ["", "A=B", "=field:a"])
def test_exec_wants_a_name_for_the_variable(daemon: Daemon, brokerctl: Run, value: str) -> None:
    done = brokerctl("exec", "ix", "--env", value, "--", "true")
    assert done.returncode == 2
    assert "expected the name of an environment variable" in done.stderr
    assert daemon.calls == []


def test_exec_never_shows_a_token_that_cannot_be_passed_on(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["get"] = lambda params: {**daemon.token(params), "value": "se\0cret"}
    done = brokerctl("exec", "ix", "--", "true")
    assert done.returncode == 1
    assert "printable" in done.stderr
    assert "cret" not in done.stderr


def watched(daemon: Daemon, *options: str) -> tuple[str, str]:
    """What brokerctl watch prints of a token and of an end, to stdout and stderr."""

    def watching(params: dict[str, Any]) -> Any:
        daemon.notify("gone", {"grant": "mail", "code": "revoked", "message": "mail was\nrevoked"})
        daemon.notify("token", daemon.token({"grant": "ix"}))
        return {"watching": params["grants"]}

    daemon.answers["watch"] = watching
    command = [*program(), "watch", "ix", "mail", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=dict(os.environ), **pipes) as process:
        assert process.stdout
        first = process.stdout.readline()
        if "--values" not in options:
            first += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    return first + out, err


def test_watch_prints_times_and_no_values(daemon: Daemon) -> None:
    out, err = watched(daemon)
    first, second = out.splitlines()
    assert first.endswith("mail gone: mail was\N{REPLACEMENT CHARACTER}revoked")
    assert "ix token, expires in" in second
    assert "token-of-ix" not in out
    assert err == ""


def test_watch_prints_values_where_they_are_asked_for(daemon: Daemon) -> None:
    out, err = watched(daemon, "--values")
    assert out == "token-of-ix\n"
    assert "mail gone" in err


def test_watch_json_prints_events_as_objects(daemon: Daemon) -> None:
    out, _ = watched(daemon, "--json")
    first, second = map(json.loads, out.splitlines())
    assert (first["event"], first["grant"], first["code"]) == ("gone", "mail", "revoked")
    assert (second["event"], second["value"], second["expires_at"]) == ("token", "token-of-ix", 2e9)


def test_watch_ends_with_6_where_the_daemon_does(daemon: Daemon) -> None:
    with subprocess.Popen([*program(), "watch", "ix"], stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        daemon.wait_for_calls(1)
        daemon.stop()
        _, err = process.communicate(timeout=30)
    daemon.start()
    assert process.returncode == 6
    assert err.startswith(b"brokerctl: ")


def test_a_reader_that_went_away_ends_watch_quietly(daemon: Daemon) -> None:
    with subprocess.Popen(
        [*program(), "watch", "ix"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout
        assert process.stderr
        daemon.wait_for_calls(1)
        process.stdout.close()
        while process.poll() is None:
            daemon.notify("token", daemon.token({"grant": "ix"}))
        assert process.stderr.read() == b""
        assert process.returncode == 141
