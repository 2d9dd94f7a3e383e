# The properties of tests/stress/fuzz in every run of the tests: over the committed inputs, over inputs that hypothesis
# builds, and, so that they can fail, over the product with a deliberate mistake. Many more: make fuzz SECONDS=…
from __future__ import annotations

import json
import re

import pytest
from brokerd_client import errors, messages
from brokerd_client.wire import Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokerd.core.exchange import redaction
from brokerd.core.fleet import gateway_errors, gateway_json
from brokerd.core.fleet.etcd import Changes
from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind
from brokerd.core.http import bodies, forwarding, heads
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects import answer_values
from brokerd.dialects.recipe import file
from brokerd.edge.http import requests
from brokerd.edge.http.answer import AnswerReader
from tests.stress.fuzz import SUBJECTS, check_of, seeds, strategies
from tests.stress.fuzz.http_server import TOKEN

EXAMPLES = 60  # for each subject; derandomised, so that a run tells of the change and not of luck


def replay(subject: str) -> None:
    check = check_of(subject)
    for path in seeds(subject):
        try:
            check(path.read_bytes())
        except Exception as error:
            error.add_note(f"again: python -m tests.stress.fuzz {subject} {path}")
            raise


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_committed_inputs_violate_nothing(subject: str) -> None:
    assert seeds(subject)
    replay(subject)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_inputs_that_are_almost_right_violate_nothing(subject: str) -> None:
    check = check_of(subject)

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategies.ALL[subject] | st.binary())
    def almost_right(data: bytes) -> None:
        check(data)

    almost_right()


def unread(*_: object) -> None:
    raise RuntimeError("a bug")


def as_it_is(body: bytes) -> Secret:
    return Secret(str(json.loads(body)["token"]))


def again(lines: gateway_json.WatchLines, cluster: int) -> list[Changes]:
    return [Changes(tuple(lines._waiting), lines._revision, cluster)] if lines._waiting else []


def shown(text: str) -> EtcdFailure:
    return EtcdFailure(FailureKind.UNCLEAR, text)


_feed = Reader.feed
MISTAKES = {
    "wire: the rest of a chunk is lost": ("wire", Reader, "feed", lambda self, data: _feed(self, data[:9])),
    "client: numbers are not looked at": ("client", messages, "is_number", lambda value: True),
    "client: texts are passed on as they are": ("client", errors, "_plain", lambda text: text),
    "recipes: JSON is not looked at": ("recipes", file, "_check_json", lambda key, value, room: None),
    "answers: a secret is not cleared": ("answers", redaction, "_forms", lambda value: iter(())),
    "answers: whatever is there is a token": ("answers", answer_values, "token", lambda value: str(value)),
    "configuration: an error forgets its file": ("configuration", ConfigError, "__str__", lambda self: self.message),
    "http_client: an exception is not foreseen": ("http_client", AnswerReader, "_check_head", unread),
    "http_server: the short way takes every head": (
        "http_server",
        requests,
        "PLAIN",
        re.compile(rb"[A-Z]+ (\S+) HTTP/1\.1\r\n.*()\r\n\r\n", re.DOTALL),
    ),
    "http_server: a refusal repeats the bytes": (
        "http_server",
        requests,
        "_fault",
        lambda text: f"{text} {TOKEN.decode()}",
    ),
    "proxied: nobody looks at the framing": ("proxied", heads, "_FRAMING", frozenset({b"host"})),
    "proxied: the client's token stays where it is": (
        "proxied",
        forwarding,
        "_kept",
        lambda headers, drop: [b"%b: %b\r\n" % (name, value) for lower, name, value in headers if lower != b"host"],
    ),
    "etcd: a token is passed on as it is": ("etcd", gateway_json, "token", as_it_is),
    "etcd: a watch may go back": ("etcd", gateway_json.WatchLines, "_complete", again),
    "etcd: every error is shown": ("etcd", gateway_errors, "_failure", shown),
    "proxied: a chunk has no end": ("proxied", bodies.ChunkedBody, "_read_line", lambda self, line: None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_committed_inputs_bite(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, owner, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises((AssertionError, RuntimeError, TypeError, ValueError)):
        replay(subject)
