# Requests that go the short way take turns too: a user with many connections does not delay one with a single one.
from __future__ import annotations

import os
from contextlib import AsyncExitStack

import pytest
import trio

from brokerd.proxy import upstreams
from brokerd.proxy.turns import MOST
from tests.unit.proxy.conftest import WITHIN, Client, Setup

FLOOD = 300  # connections
ROUNDS = 8  # of the event loop, that a request and its answer may take here: client, proxy and upstream share it
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_flood_on_the_short_way_delays_no_other_user(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "KEPT", 2 * FLOOD)
    answered = list[str]()

    async def ask(client: Client, name: str) -> None:
        assert b" 200 " in await client.stream.receive_some(65_536)
        answered.append(name)

    async with AsyncExitStack() as stack:
        flood = [await stack.enter_async_context(setup.client(60_901)) for _ in range(FLOOD)]
        other = await stack.enter_async_context(setup.client(60_902))
        with trio.fail_after(WITHIN):
            for _ in range(2):  # the first time, each opens a connection to the upstream
                answered.clear()
                for client in (*flood, other):  # the other user is the last one, and nobody is served meanwhile
                    os.write(client.stream.socket.fileno(), GET)
                async with trio.open_nursery() as nursery:
                    for client in (*flood, other):
                        nursery.start_soon(ask, client, "other" if client is other else "flood")
    assert len(answered) == FLOOD + 1
    assert setup.upstream.connections <= FLOOD + 1
    assert answered.index("other") <= ROUNDS * MOST
