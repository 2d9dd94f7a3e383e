# Scripted HTTP servers on loopback: a test decides byte for byte what each connection receives. They use no code of
# brokerd.
from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """The server's end of one connection; `number` counts connections from 0."""

    def __init__(self, stream: trio.abc.Stream, raw: trio.SocketStream, number: int) -> None:
        self.stream = stream
        self.raw = raw
        self.number = number
        self.requests: list[bytes] = []
        self._buffer = b""

    async def request(self) -> bytes:
        """The next whole request, head and body; b"" once the client has closed."""
        while True:
            head, blank, rest = self._buffer.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            if blank and len(rest) >= length:
                self._buffer = rest[length:]
                self.requests.append(head + blank + rest[:length])
                return self.requests[-1]
            data = await self.stream.receive_some()
            if not data:
                return b""
            self._buffer += data

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hears_the_end(self) -> None:
        """Until the client closes, politely or not."""
        with contextlib.suppress(trio.BrokenResourceError):
            while await self.stream.receive_some():
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.socket.close()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    def __init__(self, host: str, port: int, scheme: str) -> None:
        self.port = port
        self.peers: list[Peer] = []
        self.ended: list[int] = []
        self.moved = trio.Event()
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"{scheme}://{self.authority}"

    @property
    def requests(self) -> list[bytes]:
        return [request for peer in self.peers for request in peer.requests]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that changes when a connection begins or ends."""
        with trio.fail_after(5):
            while not condition():
                await self.moved.wait()

    def _move(self) -> None:
        self.moved.set()
        self.moved = trio.Event()


async def always_ok(peer: Peer) -> None:
    """Answers every request on the connection."""
    while await peer.request():
        await peer.say(OK)


def answering(*answers: bytes) -> Script:
    """One answer for each request of a connection, then the end."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.say(answer)

    return script


@contextlib.asynccontextmanager
async def serving(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Server, None]:
    """Run the script for each connection. It may break off when the client does; its other errors fail the test."""
    listener = (await trio.open_tcp_listeners(0, host=host))[0]
    server = Server(host, listener.socket.getsockname()[1], "https" if tls else "http")

    async def handle(raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw if tls is None else trio.SSLStream(raw, tls, server_side=True)
        peer = Peer(stream, raw, len(server.peers))
        server.peers.append(peer)
        server._move()
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await script(peer)
                await stream.aclose()
        finally:
            raw.socket.close()
            server.ended.append(peer.number)
            server._move()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield server
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def proxying(to_port: int, *, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> AsyncGenerator[Server, None]:
    """A CONNECT proxy that leads every tunnel to one local port, whatever was asked for."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        if b" 200 " not in answer:
            return
        target = await trio.open_tcp_stream("127.0.0.1", to_port)
        async with target, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, peer.stream, target)
            await _pump(target, peer.stream)
            nursery.cancel_scope.cancel()

    async with serving(script) as server:
        yield server


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some():
            await sink.send_all(data)
        if isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()
