# bazel-credential-brokerd, by the published protocol and its schemas: https://github.com/EngFlow/credential-helper-spec
from __future__ import annotations

import json
from typing import Any

import pytest
from brokerd_client.credentials import bazel
from brokerd_client.errors import Unavailable

from tests.unit.client.credentials.conftest import Run
from tests.unit.client.daemon import Daemon

HEADERS = {"Authorization": ["Bearer token-of-git"]}


@pytest.mark.parametrize(
    "uri", ["https://git.example/archive.tgz", "grpcs://git.example/google.devtools.Service/Do", "https://git.example"]
)
def test_get_answers_with_headers_and_until_when(daemon: Daemon, run: Run, uri: str) -> None:
    code, out, err = run(bazel, json.dumps({"uri": uri, "more": 1}), "get")
    assert (code, json.loads(out), err) == (0, {"headers": HEADERS, "expires": "2033-05-18T03:33:20Z"}, "")


def test_a_token_without_an_expiry_has_none(daemon: Daemon, run: Run) -> None:
    daemon.answers["get"] = lambda params: {
        **daemon.token(params),
        "expires_at": None,
        "present": "X-Key: {access_token}",
    }
    out = run(bazel, '{"uri": "https://git.example/"}', "get")[1]
    assert json.loads(out) == {"headers": {"X-Key": ["token-of-git"]}}


@pytest.mark.parametrize(
    "uri",
    [
        *("https://git.example.evil.example/", "http://git.example/", "grpc://git.example/", "git.example"),
        *(
            "https://git.example@evil.example/",
            "https://index.example/simple/%2e%2e/",
            "https://[",
            "https://nope.example/",
        ),
    ],
)
def test_an_address_without_a_grant_needs_no_header(daemon: Daemon, run: Run, uri: str) -> None:
    code, out, _ = run(bazel, json.dumps({"uri": uri}), "get")
    assert (code, out) == (0, '{"headers": {}}\n')


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"uri": 1}', "x"])
def test_another_question_is_an_error(daemon: Daemon, run: Run, text: str) -> None:
    code, out, err = run(bazel, text, "get")
    assert (code, out) == (1, "")
    assert 'expected {"uri"' in err


def test_a_grant_without_a_token_is_an_error(daemon: Daemon, run: Run) -> None:
    def fails(params: dict[str, Any]) -> Any:
        raise Unavailable("the provider is down", retry_after=3)

    daemon.answers["get"] = fails
    code, out, err = run(bazel, '{"uri": "https://git.example/"}', "get")
    assert (code, out, err) == (1, "", "bazel-credential-brokerd: the provider is down; try again in 3 s\n")
