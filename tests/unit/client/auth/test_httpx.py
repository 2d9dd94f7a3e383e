# httpx with BrokerAuth, blocking, on asyncio and on trio, against real servers on loopback.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from brokerd_client.auth.httpx import BrokerAuth
from brokerd_client.on_asyncio import Broker

from tests.unit.client.auth.conftest import Api
from tests.unit.client.daemon import Daemon

Start = Callable[..., Api]


def blocking(url: str, **settings: object) -> int:
    with httpx.Client(auth=BrokerAuth("ix"), follow_redirects=True) as client:
        return client.post(url, **settings).status_code  # type: ignore[arg-type]


async def on_a_loop(url: str, **settings: object) -> int:
    async with httpx.AsyncClient(auth=BrokerAuth("ix"), follow_redirects=True) as client:
        return (await client.post(url, **settings)).status_code  # type: ignore[arg-type]


def on_asyncio(url: str, **settings: object) -> int:
    return asyncio.run(on_a_loop(url, **settings))


WAYS = pytest.mark.parametrize("post", [blocking, on_asyncio])


@WAYS
def test_a_request_has_the_token(brokerd: Daemon, api: Start, post: Callable[..., int]) -> None:
    server = api("first")
    assert post(server.url) == 200
    assert [sent for _, sent, _ in server.seen] == ["first"]


@WAYS
def test_a_refused_token_is_replaced_once_and_the_body_sent_again(
    brokerd: Daemon, api: Start, post: Callable[..., int]
) -> None:
    server = api("second")
    assert post(f"{server.url}/a", content=b"body") == 200
    assert server.seen == [("/a", "first", b"body"), ("/a", "second", b"body")]


@WAYS
def test_an_api_that_refuses_every_token_is_asked_twice(brokerd: Daemon, api: Start, post: Callable[..., int]) -> None:
    server = api("nothing")
    assert (post(server.url), len(server.seen)) == (401, 2)


def test_a_body_that_cannot_be_sent_again_is_sent_once(brokerd: Daemon, api: Start) -> None:
    server = api("second")
    assert (blocking(server.url, content=iter([b"a"])), len(server.seen)) == (401, 1)

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"

    assert (on_asyncio(server.url, content=parts()), len(server.seen)) == (401, 2)


@WAYS
def test_a_redirect_to_another_origin_takes_no_token_along(
    brokerd: Daemon, api: Start, post: Callable[..., int]
) -> None:
    thief = api("first")
    server = api("first", target=thief.url)
    assert post(server.url) == 401
    assert [sent for _, sent, _ in thief.seen] == [None]


@WAYS
def test_a_header_that_httpx_would_send_to_other_origins_is_refused(
    brokerd: Daemon, api: Start, post: Callable[..., int]
) -> None:
    brokerd.present = "X-Api-Key: {access_token}"  # type: ignore[attr-defined]
    server = api("first", header="X-Api-Key")
    with pytest.raises(ValueError, match="follow_redirects=False"):
        post(server.url)
    assert server.seen == []
    with httpx.Client(auth=BrokerAuth("ix", any_header=True)) as client:
        assert client.get(server.url).status_code == 200


async def test_it_works_on_trio(brokerd: Daemon, api: Start) -> None:
    server = api("second")
    assert await on_a_loop(server.url) == 200


def test_many_requests_share_the_programs_broker(brokerd: Daemon, api: Start) -> None:
    server = api("first")

    async def main() -> None:
        async with Broker(share=False) as broker, httpx.AsyncClient(auth=BrokerAuth("ix", broker)) as client:
            for _ in range(3):
                assert (await client.get(server.url)).status_code == 200

    asyncio.run(main())
    assert brokerd.connections == 1
