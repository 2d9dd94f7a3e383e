# requests with BrokerAuth, against real servers on loopback: one more try, and no token to anybody else.
from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import requests
from brokerd_client import UnknownGrant
from brokerd_client.auth.requests import BrokerAuth

from tests.unit.client.auth.conftest import Api
from tests.unit.client.daemon import Daemon

Start = Callable[..., Api]


def test_a_request_has_the_token(brokerd: Daemon, api: Start) -> None:
    server = api("first")
    assert requests.get(server.url, auth=BrokerAuth("ix"), timeout=10).status_code == 200
    assert [sent for _, sent, _ in server.seen] == ["first"]


@pytest.mark.parametrize("body", [b"body", "body", io.BytesIO(b"body")], ids=["bytes", "text", "file"])
def test_a_refused_token_is_replaced_once_and_the_body_sent_again(brokerd: Daemon, api: Start, body: object) -> None:
    server = api("second")
    answer = requests.post(f"{server.url}/a", data=body, auth=BrokerAuth("ix"), timeout=10)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert server.seen == [("/a", "first", b"body"), ("/a", "second", b"body")]
    assert [params.get("refused") for _, params in brokerd.calls] == [None, "first"]


def test_an_api_that_refuses_every_token_is_asked_twice(brokerd: Daemon, api: Start) -> None:
    server = api("nothing")
    assert requests.get(server.url, auth=BrokerAuth("ix"), timeout=10).status_code == 401
    assert len(server.seen) == 2


def test_a_body_that_cannot_be_sent_again_is_sent_once(brokerd: Daemon, api: Start) -> None:
    server = api("second")
    answer = requests.post(server.url, data=iter([b"a", b"b"]), auth=BrokerAuth("ix"), timeout=10)
    assert (answer.status_code, len(server.seen)) == (401, 1)


@pytest.mark.parametrize("present", ["Authorization: {access_token}", "X-Api-Key: {access_token}"])
def test_a_redirect_to_another_origin_takes_no_token_along(brokerd: Daemon, api: Start, present: str) -> None:
    brokerd.present = present  # type: ignore[attr-defined]
    header = present.partition(":")[0]
    thief = api("first", header=header)
    server = api("first", header=header, target=thief.url)
    assert requests.get(server.url, auth=BrokerAuth("ix"), timeout=10).status_code == 401
    assert [sent for _, sent, _ in server.seen] == ["first"]
    assert [sent for _, sent, _ in thief.seen] == [None]


def test_a_redirect_within_the_origin_keeps_the_token(brokerd: Daemon, api: Start) -> None:
    server = api("first", target="/moved")
    with pytest.raises(requests.TooManyRedirects):
        requests.get(server.url, auth=BrokerAuth("ix"), timeout=10)
    assert {sent for _, sent, _ in server.seen} == {"first"}


def test_brokerds_error_is_raised(daemon: Daemon, api: Start) -> None:
    with pytest.raises(UnknownGrant):
        requests.get(api().url, auth=BrokerAuth("nope"), timeout=10)
