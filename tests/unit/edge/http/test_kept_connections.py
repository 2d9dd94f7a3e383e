# Connections that the HTTP client keeps, uses again and closes.
from __future__ import annotations

import pytest
import trio

from tests.unit.edge.http.fixtures import StepClock, client, failure, get, post
from tests.unit.edge.http.servers import OK, Peer, always_ok, answering, serving


async def test_a_connection_is_used_again() -> None:
    async with serving(always_ok) as server, client() as http:
        for _ in range(5):
            await http.send(get(server.url))
        assert len(server.peers) == 1
        assert len(server.requests) == 5


async def test_requests_at_once_have_a_connection_each_and_few_of_them_are_kept() -> None:
    together = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 5:
            together.set()
        await together.wait()
        await peer.say(OK)
        while await peer.request():
            await peer.say(OK)

    async with serving(script) as server, client(max_idle=2) as http:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(http.send, get(server.url))
        await server.until(lambda: len(server.ended) == 4)
        for _ in range(3):
            await http.send(get(server.url))
        assert len(server.peers) == 6


async def test_closing_the_client_closes_what_it_kept_and_it_keeps_nothing_more() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(get(server.url))
        await http.aclose()
        await server.until(lambda: server.ended == [0])
        await http.send(get(server.url))
        await server.until(lambda: server.ended == [0, 1])


async def test_a_connection_that_is_idle_for_too_long_is_closed() -> None:
    clock = StepClock()
    async with serving(always_ok) as server, client(clock=clock) as http:
        await http.send(get(server.url))
        clock.advance(14)
        http.sweep()
        assert server.ended == []
        clock.advance(2)
        http.sweep()
        await server.until(lambda: server.ended == [0])
        await http.send(get(server.url))
        assert len(server.peers) == 2


@pytest.mark.parametrize("stray", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_kept_connection_on_which_something_came_is_not_used(stray: bytes) -> None:
    """An end, or an answer that nobody asked for and that the next request must not take for its own."""
    told, came = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            await told.wait()
            if stray:
                await peer.say(stray)
                came.set()
                await peer.hears_the_end()

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        told.set()
        if stray:
            await came.wait()
        else:
            await server.until(lambda: server.ended == [0])
        assert (await http.send(get(server.url))).status == 200
        assert len(server.peers) == 2


async def test_more_bytes_than_the_answer_end_the_connection() -> None:
    async with serving(answering(OK + OK, OK)) as server, client() as http:
        await http.send(get(server.url))
        await http.send(get(server.url))
        assert len(server.peers) == 2


@pytest.mark.parametrize("answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"1.1", b"1.0")])
async def test_a_connection_that_the_server_will_close_is_not_kept(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(answer)

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        await server.until(lambda: server.ended == [0])


async def test_a_spending_request_has_a_connection_of_its_own() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(get(server.url))
        await http.send(post(server.url, sends_stored=True))
        await server.until(lambda: server.ended == [1])
        await http.send(post(server.url, sends_stored=True))
        await http.send(get(server.url))
        assert [len(peer.requests) for peer in server.peers] == [2, 1, 1]
        assert b"connection: close" in server.peers[1].requests[0]


async def test_nothing_is_repeated_when_a_kept_connection_dies_under_a_request() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        error = await failure(http, post(server.url))
        assert error.sent
        assert error.reason == f"{server.authority}: connection closed before an answer; does it speak https?"
        assert (len(server.requests), len(server.peers)) == (2, 1)


async def test_origins_do_not_share_connections() -> None:
    async with serving(always_ok) as one, serving(always_ok) as other, client() as http:
        await http.send(get(one.url))
        await http.send(get(other.url))
        await http.send(get(f"http://localhost:{one.port}"))
        assert (len(one.peers), len(other.peers)) == (2, 1)
