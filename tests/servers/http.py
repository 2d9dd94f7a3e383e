# A small HTTP/1.1 server for tests, on trio and h11: loopback only, keep-alive, optional TLS. It knows connections
# and mounts, and nothing of tokens or faults: what to answer, or to break off, is the mounts' affair.
from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import h11
import trio

MAX_HEAD = 64 * 1024  # bytes of request line and headers; more than any client of ours has a reason to send
MAX_BODY = 1024 * 1024  # bytes; token requests have a few hundred
BACKLOG = 1024  # a benchmark opens hundreds of connections at once
HANDSHAKE = 10.0  # seconds
LINGER = 1.0  # seconds to read on after an early answer, so that a reset does not destroy it on its way

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. `path` lies below the mount's prefix, percent-encoding kept; header names are lower-case.

    `connection` numbers the server's connections from 1, so that a test can see which requests shared one.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    connection: int = 0
    peer_certificate: bytes | None = None  # DER, where the client presented one

    def header(self, name: str) -> str | None:
        """The first header of that name (given in lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer. The server adds the framing: Content-Length, or chunks where `chunked`."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes instead of an answer, then the end of the connection; where `stall`, silence till the client goes."""

    data: bytes
    stall: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """No answer: the connection is closed, where `reset` with a TCP RST."""

    reset: bool = False


Answer = Response | Raw | Close


class Mount(Protocol):
    """What a server carries under a path prefix."""

    @property
    def down(self) -> bool: ...

    def mounted(self, server: Server, url: str) -> None: ...

    async def answer(self, request: Request, /) -> Answer: ...


def json_response(status: int, content: object, headers: Headers = (), of: str = "application/json") -> Response:
    """An answer with a JSON body of content type `of`."""
    return Response(status, (("content-type", of), *headers), json.dumps(content).encode())


@dataclass(eq=False)
class Server:
    """Mounts under path prefixes on one loopback port. Start it with `await nursery.start(server.run)`.

    A server whose mounts are all `down` refuses connections (nobody listens on the port, which stays reserved).
    """

    mounts: Mapping[str, Mount]
    tls: ssl.SSLContext | None = None
    port: int = 0  # 0: the system chooses, and it stands here once the server runs
    host: str = "127.0.0.1"
    keep_alive: bool = True
    connections: int = 0  # accepted since the start
    failed_handshakes: int = 0
    _open: dict[int, trio.CancelScope] = field(default_factory=dict)
    _listener: trio.SocketListener | None = None
    _listening: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, or https."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def run(self, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        with socket.socket() as reserved:  # bound and never listening: it keeps the port while connections are refused
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((self.host, self.port))
            self.port = reserved.getsockname()[1]
            for prefix, mount in self.mounts.items():
                mount.mounted(self, self.url + prefix)
            self.review()
            try:
                async with trio.open_nursery() as nursery:
                    task_status.started(self)
                    await self._accept(nursery)
            finally:
                self.refuse()

    def review(self) -> None:
        """Listen or refuse, as the mounts' `down` says."""
        if all(mount.down for mount in self.mounts.values()):
            self.refuse()
        else:
            self.listen()

    def listen(self) -> None:
        """Take connections, after `refuse` as well."""
        if self._listener is not None:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.host, self.port))
        listening.listen(BACKLOG)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self._listening.set()

    def refuse(self) -> None:
        """Close the listening socket and every connection: who connects now gets ECONNREFUSED."""
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None
            self._listening = trio.Event()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Break off every open connection, idle or not."""
        for scope in self._open.values():
            scope.cancel()

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            await self._listening.wait()
            listener = self._listener
            if listener is None:
                continue
            try:
                while True:
                    nursery.start_soon(self._serve, await listener.accept())
            except trio.ClosedResourceError:
                continue  # `refuse` closed it

    async def _serve(self, transport: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        with trio.CancelScope() as scope:
            self._open[number] = scope
            try:
                await self._converse(transport, number)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client went away
            finally:
                del self._open[number]
                await trio.aclose_forcefully(transport)

    async def _converse(self, transport: trio.SocketStream, number: int) -> None:
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        certificate = None
        if self.tls is not None:
            stream = trio.SSLStream(transport, self.tls, server_side=True, https_compatible=True)
            if not await self._shake_hands(stream):
                return
            certificate = stream.getpeercert(binary_form=True)
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while True:
            try:
                head, body = await _receive(http, stream)
            except h11.RemoteProtocolError as error:
                await _send(http, stream, "", _plain(error.error_status_hint, str(error)), close=True)
                await _linger(transport)
                return
            if head is None:
                break
            if body is None:
                await _send(http, stream, "", _plain(413, f"expected at most {MAX_BODY} bytes"), close=True)
                await _linger(transport)
                return
            method = head.method.decode("ascii")
            answer = await self._answer(method, head, body, number, certificate)
            match answer:
                case Response():
                    await _send(http, stream, method, answer, close=not self.keep_alive)
                case Raw(data, stall):
                    await stream.send_all(data)
                    if stall:
                        await _until_gone(stream)
                    break
                case Close(reset):
                    if reset:
                        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                break
            http.start_next_cycle()
        await stream.aclose()

    async def _shake_hands(self, stream: trio.SSLStream[trio.SocketStream]) -> bool:
        with trio.move_on_after(HANDSHAKE):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                pass
            else:
                return True
        self.failed_handshakes += 1
        return False

    async def _answer(
        self, method: str, head: h11.Request, body: bytes, number: int, certificate: bytes | None
    ) -> Answer:
        path, _, query = head.target.decode("ascii").partition("?")
        under = [prefix for prefix in self.mounts if path == prefix or path.startswith(prefix + "/")]
        if not under:
            return _plain(404, f"nothing is mounted at {path}")
        prefix = max(under, key=len)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        request = Request(method, path.removeprefix(prefix), query, headers, body, number, certificate)
        return await self.mounts[prefix].answer(request)


async def _receive(http: h11.Connection, stream: trio.abc.Stream) -> tuple[h11.Request | None, bytes | None]:
    """The next request's head and body; no head: the client is done; no body: it is too large."""
    head = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                await stream.send_all(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return head, None
        elif isinstance(event, h11.EndOfMessage):
            return head, bytes(body)
        else:  # ConnectionClosed
            return None, b""


async def _send(http: h11.Connection, stream: trio.abc.Stream, method: str, response: Response, *, close: bool) -> None:
    headers = list(response.headers)
    if response.chunked:
        headers.append(("transfer-encoding", "chunked"))
    elif response.status != 204:
        headers.append(("content-length", str(len(response.body))))
    if close:
        headers.append(("connection", "close"))
    wire = http.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if method != "HEAD" and response.body:
        half = len(response.body) // 2 if response.chunked else 0  # two chunks, so that they have to be joined
        for piece in (response.body[:half], response.body[half:]):
            wire += http.send(h11.Data(data=piece)) or b"" if piece else b""
    wire += http.send(h11.EndOfMessage()) or b""
    await stream.send_all(wire)


async def _until_gone(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


async def _linger(transport: trio.SocketStream) -> None:
    with trio.move_on_after(LINGER):
        await transport.send_eof()
        await _until_gone(transport)


def _plain(status: int, text: str) -> Response:
    return Response(status, (("content-type", "text/plain"),), text.encode())
