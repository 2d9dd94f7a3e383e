# One request and its answer, on virtual time, with an upstream at the other end of a real connection.
from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import trio
from brokerd_client import Token

from brokerd.config.proxies import ProxySettings, read
from brokerd.core.http.forwarding import NotForwarded
from brokerd.core.http.heads import read_request
from brokerd.edge.http.wire import Wire
from brokerd.proxy.exchange import REFUSAL_WITHIN, Exchange
from brokerd.proxy.streams import ClientGone, Incoming, buffer
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.turns import Turn, Turns
from brokerd.proxy.upstreams import UpstreamConnections

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TOKEN = Token("token", "Bearer", None, "x")


class Tokens:
    """It has one token, and another one for each that was refused."""

    def __init__(self) -> None:
        self.refused = 0

    def current(self, _source: object) -> Token:
        return TOKEN

    async def replaced(self, _source: object, _refused: Token) -> Token:
        self.refused += 1
        return Token(f"token-{self.refused}", "Bearer", None, "x")


class Upstreams:
    """Each connection is served by `handler`."""

    def __init__(self, nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._handler = handler
        self.opened = 0

    def take_kept(self) -> None:
        return None

    async def open(self, _turn: Turn) -> Wire:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.opened += 1
        self._nursery.start_soon(self._serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        return Wire(ours, patience=60.0)

    async def _serve(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await stream.receive_some(65_536)
                await self._handler(stream)

    def keep(self, wire: Wire) -> None:
        wire.close()


@pytest.fixture
def settings(tmp_path: Path) -> ProxySettings:
    path = tmp_path / "proxy.toml"
    path.write_text('[proxies.x]\ngrant = "x"\nupstream = "https://api.example"\nsocket = "/x"\ncaller = { uid = 0 }\n')
    (found,), _ = read(path)
    assert isinstance(found, ProxySettings)
    return found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def test_a_refusal_that_comes_byte_by_byte_has_a_deadline(
    settings: ProxySettings, pair: tuple[socket.socket, socket.socket], autojump_clock: trio.abc.Clock
) -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1_000):
            await trio.sleep(1.0)
            await stream.send_all(b"x")

    tokens, began = Tokens(), trio.current_time()
    async with trio.open_nursery() as nursery:
        upstreams = cast(UpstreamConnections, Upstreams(nursery, drip))
        client = Incoming(Wire(pair[1], ClientGone), Turn(Turns(), 0))
        exchange = Exchange(settings, cast(LiveTokens, tokens), upstreams, client, read_request(GET))
        with buffer() as room, pytest.raises(NotForwarded, match="401 did not end within 10 s") as caught:
            await exchange.run(room)
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()
    assert (caught.value.status, exchange.done.status, exchange.done.keep) == (504, 0, False)
    assert REFUSAL_WITHIN <= took < REFUSAL_WITHIN + 2
    assert tokens.refused == 0


async def test_a_refusal_that_ends_in_time_is_followed_by_one_more_try(
    settings: ProxySettings, pair: tuple[socket.socket, socket.socket], autojump_clock: trio.abc.Clock
) -> None:
    async def slow(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n")
        for _ in range(9):
            await trio.sleep(1.0)
            await stream.send_all(b"x")

    tokens = Tokens()
    async with trio.open_nursery() as nursery:
        upstreams = Upstreams(nursery, slow)
        client = Incoming(Wire(pair[1], ClientGone), Turn(Turns(), 0))
        kept = cast(UpstreamConnections, upstreams)
        exchange = Exchange(settings, cast(LiveTokens, tokens), kept, client, read_request(GET))
        with buffer() as room:
            await exchange.run(room)
        nursery.cancel_scope.cancel()
    assert (exchange.done.status, tokens.refused, upstreams.opened) == (401, 1, 2)
    assert pair[0].recv(65_536).endswith(b"\r\n\r\n" + b"x" * 9)
