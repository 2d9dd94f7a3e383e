# What the auth classes hold and for how long: across threads, forks and event loops, and when brokerd has no token.
from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
from collections.abc import Callable

import aiohttp
import httpx
import pytest
import requests
from brokerd_client.auth.aiohttp import BrokerAuth as AiohttpAuth
from brokerd_client.auth.httpx import BrokerAuth as HttpxAuth
from brokerd_client.auth.requests import BrokerAuth as RequestsAuth
from brokerd_client.errors import NeedsLogin

from tests.unit.client.auth.conftest import Api
from tests.unit.client.daemon import Daemon

Start = Callable[..., Api]
Ask = Callable[[str], int]


def by_requests() -> Ask:
    auth = RequestsAuth("ix")
    return lambda url: requests.get(url, auth=auth, timeout=10).status_code


def by_httpx() -> Ask:
    auth = HttpxAuth("ix")
    return lambda url: httpx.get(url, auth=auth).status_code


def by_httpx_on_asyncio() -> Ask:
    auth = HttpxAuth("ix")

    async def ask(url: str) -> int:
        async with httpx.AsyncClient(auth=auth) as client:
            return (await client.get(url)).status_code

    return lambda url: asyncio.run(ask(url))


def by_aiohttp() -> Ask:
    auths: dict[str, AiohttpAuth] = {}

    async def ask(url: str) -> int:
        auth = auths.setdefault(url, AiohttpAuth("ix", url))
        async with aiohttp.ClientSession(middlewares=[auth]) as session, session.get(url) as answer:
            return answer.status

    return lambda url: asyncio.run(ask(url))


WAYS = pytest.mark.parametrize("way", [by_requests, by_httpx, by_httpx_on_asyncio, by_aiohttp])


@WAYS
def test_one_object_serves_many_event_loops_and_threads(brokerd: Daemon, api: Start, way: Callable[[], Ask]) -> None:
    ask, server = way(), api("first")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(server.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, ask(server.url)) == ([200] * 4, 200)


@WAYS
def test_one_object_serves_a_forked_process_too(brokerd: Daemon, api: Start, way: Callable[[], Ask]) -> None:
    """brokerd would refuse the parent's connection to the child."""
    ask, server = way(), api("first")
    assert ask(server.url) == 200
    before = brokerd.connections
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ask(server.url) == 200 else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert brokerd.connections == before + 1
    assert ask(server.url) == 200


def test_threads_that_begin_at_once_share_one_broker(brokerd: Daemon) -> None:
    auth, begin = HttpxAuth("ix"), threading.Barrier(8)
    found = []

    def look() -> None:
        begin.wait()
        found.append(auth._blocking())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_one_object_serves_both_clients_of_httpx(brokerd: Daemon, api: Start) -> None:
    auth, server = HttpxAuth("ix"), api("first")

    async def ask() -> int:
        async with httpx.AsyncClient(auth=auth) as client:
            return (await client.get(server.url)).status_code

    assert httpx.get(server.url, auth=auth).status_code == 200
    assert asyncio.run(ask()) == 200
    assert httpx.get(server.url, auth=auth).status_code == 200


@WAYS
def test_nothing_stays_open_behind_an_object_that_is_gone(brokerd: Daemon, api: Start, way: Callable[[], Ask]) -> None:
    ask, server = way(), api("first")
    assert ask(server.url) == 200
    del ask
    until_left(brokerd, server)


@WAYS
def test_where_brokerd_has_no_second_token_its_error_comes_and_nothing_stays_open(
    brokerd: Daemon, api: Start, way: Callable[[], Ask]
) -> None:
    first = brokerd.answers["get"]

    def get(params: dict[str, object]) -> object:
        if "refused" in params:
            raise NeedsLogin("ix needs a login", grant="ix")
        return first(params)

    brokerd.answers["get"] = get
    ask, server = way(), api("second")
    with pytest.raises(NeedsLogin):
        ask(server.url)
    del ask
    until_left(brokerd, server)


def until_left(brokerd: Daemon, server: Api) -> None:
    """Until all connections to both have ended."""
    gc.collect()
    for connection in brokerd.open:
        connection._threads[0].join(10)  # it reads until the client closes
        assert not connection._threads[0].is_alive()
    assert server.idle.wait(10)
