"""A proxy whose upstream a test plays, and a client of it: real sockets, no broker."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import trio
from brokerd_client import Token, Unavailable
from brokerd_client.on_trio import Broker

from brokerd.config.proxies import ProxySettings, read
from brokerd.core.http.heads import END
from brokerd.edge.http.wire import Broken
from brokerd.proxy.clients import ProxyClient
from brokerd.proxy.running import RunningProxy
from brokerd.proxy.short_way import ShortWays
from brokerd.proxy.streams import ClientGone
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.turns import Turn, Turns
from brokerd.proxy.upstreams import UpstreamConnections
from brokerd.proxy.usage import Usage


class NoBroker:
    """It can be asked nothing."""

    async def get(self, *_: object, **__: object) -> Token:
        raise Unavailable("no broker")


WITHIN = 30.0  # seconds for whatever a test waits for
TOKEN = Token("s3cret-token", "Bearer", None, "x")

Played = Callable[[trio.SocketStream, bytes], Awaitable[None]]  # a connection, and the head that came


@dataclass
class Upstream:
    """`plays`: what it does with a request; otherwise it sends `answer`. `heads`, `bodies`: what came. `body`: how many
    bytes the body of a POST has."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    plays: Played | None = None
    heads: list[bytes] = field(default_factory=list)
    body: int = 0
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        ahead = b""
        async with stream:
            try:
                while more := await stream.receive_some(65_536):
                    ahead += more
                    while END in ahead:
                        head, _, ahead = ahead.partition(END)
                        self.heads.append(head + END)
                        size = self.body if head.startswith(b"POST") else 0
                        while len(ahead) < size:
                            ahead += await stream.receive_some(65_536)
                        self.bodies.append(ahead[:size])
                        ahead = ahead[size:]
                        if self.plays:
                            await self.plays(stream, head + END)
                        else:
                            await stream.send_all(self.answer)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self.ended += 1


@dataclass
class Client:
    """One connection to the proxy."""

    stream: trio.SocketStream
    proxied: ProxyClient
    usage: Usage

    async def ask(self, request: bytes, *, pieces: int = 1) -> bytes:
        """All that comes back until the proxy waits for the next request, or the end. In two pieces, the request goes
        the long way."""
        before = self.requests
        while not self.proxied.is_idle:
            await trio.lowlevel.checkpoint()
        for piece in [request] if pieces == 1 else [request[:5], request[5:]]:
            await self.stream.send_all(piece)
            while self.proxied.is_idle and pieces > 1:
                await trio.lowlevel.checkpoint()
        return await self.answer(before)

    async def answer(self, before: float = 0) -> bytes:
        """Of a request that was sent when `before` had been answered."""
        found = b""
        with trio.fail_after(WITHIN):
            while True:
                done = self.requests > before and self.proxied.is_idle
                with trio.move_on_after(0.01) as scope:
                    if not (more := await self.stream.receive_some(65_536)):
                        return found
                    found += more
                if scope.cancelled_caught and done:
                    return found

    @property
    def requests(self) -> int:
        """That were answered."""
        return sum(count.requests for count in self.usage._counts.values())


@dataclass
class Setup:
    settings: ProxySettings
    upstream: Upstream
    usage: Usage
    tokens: LiveTokens
    running: RunningProxy
    ways: ShortWays
    turns: Turns = field(default_factory=Turns)

    @asynccontextmanager
    async def client(self, uid: int = os.geteuid()) -> AsyncIterator[Client]:
        """`uid`: whose turns it has."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        proxied = ProxyClient(theirs, self.running, os.geteuid(), self.ways, Turn(self.turns, uid))
        await proxied.attest()

        async def serve() -> None:
            try:
                await proxied.serve()
            except (ClientGone, Broken):
                pass
            finally:
                proxied.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
                yield Client(stream, proxied, self.usage)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def proxied(folder: Path, **keys: str | None) -> AsyncIterator[Setup]:
    """`keys`: of the proxy, as TOML; None: without that key."""
    async with trio.open_nursery() as nursery:
        upstream = Upstream()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        port = listener.socket.getsockname()[1]
        lines: dict[str, str | None] = {"grant": '"x"', "socket": '"/x"', "caller": f"{{ uid = {os.geteuid()} }}"}
        lines |= {"upstream": f'"http://127.0.0.1:{port}/base"', **keys}
        path = folder / "proxy.toml"
        path.write_text("[proxies.x]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value))
        (settings,), errors = read(path)
        assert not errors
        assert isinstance(settings, ProxySettings)
        usage, tokens, ways = Usage(), LiveTokens(cast(Broker, NoBroker()), lambda _: None), ShortWays()
        tokens._tell(settings.source, TOKEN)
        nursery.start_soon(ways.run)
        running = RunningProxy(settings, tokens, usage, UpstreamConnections(settings))
        yield Setup(settings, upstream, usage, tokens, running, ways)
        running.close()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    async with proxied(tmp_path) as made:
        yield made
