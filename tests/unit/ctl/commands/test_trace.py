# brokerctl trace: steps in words and as JSON, and its end.
from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run

BEGIN = {"grant": "ix", "ms": 0.1, "step": "begin", "words": "brokerd asks", "request_id": "id-1"}
SENT = {
    "grant": "ix",
    "ms": 12.6,
    "step": "request",
    "words": "POST https://idp.example/token",
    "request_id": "id-1",
    "headers": ["Content-Type"],
    "fields": {"grant_type": "refresh_token", "refresh_token": "(hidden, 43 characters)"},
}
ANSWER = {
    "grant": "ix",
    "ms": 190.2,
    "step": "answer",
    "words": "answer\x1b[2J 200",
    "request_id": "id-1",
    "headers": {"content-type": "application/json"},
    "fields": {},
    "more_fields": 2,
    "provider_request_id": "theirs",
}
FAILURE = {"code": "unavailable", "message": "ix: no", "retry_after": 4.0, "request_id": "id-1"}


@pytest.fixture
def steps(daemon: Daemon) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [BEGIN, SENT, ANSWER]

    def trace(params: dict[str, Any]) -> Any:
        for step in said:
            daemon.notify("trace", step)
        return {"grant": params["grant"]}

    daemon.answers["trace"] = trace
    return said


def test_each_step_is_a_line_with_what_was_in_it(steps: list[dict[str, Any]], brokerctl: Run) -> None:
    steps.append({"grant": "ix", "step": "end", "lost": 0})
    done = brokerctl("trace", "ix")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "ix: request_id id-1\n"
        "       0 ms  begin       brokerd asks\n"
        "      13 ms  request     POST https://idp.example/token\n"
        "                        headers: Content-Type\n"
        "                        grant_type = refresh_token\n"
        "                        refresh_token = (hidden, 43 characters)\n"
        "     190 ms  answer      answer�[2J 200\n"
        "                        headers: content-type: application/json\n"
        "                        and 2 more fields, whose names are hidden too\n"
        "                        provider_request_id theirs\n"
    )


def test_it_fails_as_refresh_does_and_names_the_request(steps: list[dict[str, Any]], brokerctl: Run) -> None:
    steps.append({"grant": "ix", "step": "end", "lost": 3, "error": FAILURE})
    done = brokerctl("trace", "ix", "--wait")
    assert done.returncode == 4
    missing, error = done.stderr.splitlines()
    assert missing == "brokerctl: 3 steps are missing, because this terminal was too slow"
    assert error == "brokerctl: ix: no (request_id id-1); try again in 4 s"


def test_as_json_each_step_is_a_line(steps: list[dict[str, Any]], within: Run) -> None:
    steps.append({"grant": "ix", "step": "end", "lost": 0})
    assert [json.loads(line) for line in within("trace", "ix", "--json").stdout.splitlines()] == steps
