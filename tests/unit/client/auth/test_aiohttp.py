# aiohttp with BrokerAuth, against real servers on loopback.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from brokerd_client.auth.aiohttp import BrokerAuth
from brokerd_client.on_asyncio import Broker

from tests.unit.client.auth.conftest import Api
from tests.unit.client.daemon import Daemon

Start = Callable[..., Api]


def post(url: str, origin: str | None = None, data: object = None) -> int:
    async def main() -> int:
        async with Broker() as broker:
            auth = BrokerAuth("ix", origin or url, broker)
            async with aiohttp.ClientSession(middlewares=[auth]) as session, session.post(url, data=data) as answer:
                return answer.status

    return asyncio.run(main())


def test_a_request_has_the_token(brokerd: Daemon, api: Start) -> None:
    server = api("first")
    assert post(server.url) == 200
    assert [sent for _, sent, _ in server.seen] == ["first"]


def test_a_refused_token_is_replaced_once_and_the_body_sent_again(brokerd: Daemon, api: Start) -> None:
    server = api("second")
    assert post(f"{server.url}/a", data=b"body") == 200
    assert server.seen == [("/a", "first", b"body"), ("/a", "second", b"body")]


def test_an_api_that_refuses_every_token_is_asked_twice(brokerd: Daemon, api: Start) -> None:
    server = api("nothing")
    assert (post(server.url), len(server.seen)) == (401, 2)


def test_a_body_that_cannot_be_sent_again_is_sent_once(brokerd: Daemon, api: Start) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"

    server = api("second")
    assert (post(server.url, data=parts()), len(server.seen)) == (401, 1)


@pytest.mark.parametrize("present", ["Authorization: {access_token}", "X-Api-Key: {access_token}"])
def test_a_redirect_to_another_origin_takes_no_token_along(brokerd: Daemon, api: Start, present: str) -> None:
    brokerd.present = present  # type: ignore[attr-defined]
    header = present.partition(":")[0]
    thief = api("first", header=header)
    server = api("first", header=header, target=thief.url)
    assert post(server.url) == 401
    assert [sent for _, sent, _ in thief.seen] == [None]


def test_another_origin_than_the_named_one_gets_no_token(brokerd: Daemon, api: Start) -> None:
    server = api("first")
    assert post(server.url, origin="https://api.ix.example") == 401
    assert brokerd.calls == []
