# An API over TLS that is strict about what it reads and, where a test says so, anything but right in what it answers.
from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h11
import trio
import trustme

PIECE = 64 * 1024


@dataclass
class Seen:
    """One request as it reached the upstream. `connection`: which one it came over."""

    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    size: int = 0
    digest: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def token(self) -> str:
        (value,) = self.all("authorization")
        return value.removeprefix("Bearer ")


@dataclass
class Link:
    """One connection at the upstream: bytes in and out, and requests read by h11."""

    number: int
    stream: trio.abc.Stream
    rest: bytes = b""
    closes: bool = False
    _reader: h11.Connection | None = None

    async def request(self) -> Seen | None:
        """The head of the next request; None: the connection has ended. Raises h11.RemoteProtocolError."""
        self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
        if self.rest:
            self._reader.receive_data(self.rest)
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        self.closes = ("connection", "close") in headers
        return Seen(self.number, event.method.decode(), event.target.decode(), headers)

    async def body(self, seen: Seen, piece: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        """Read the body to its end."""
        digest = hashlib.sha256()
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                break
            assert isinstance(event, h11.Data), event
            seen.size += len(event.data)
            digest.update(event.data)
            if piece is not None:
                await piece(bytes(event.data))
        seen.digest = digest.hexdigest()
        assert self._reader is not None
        self.rest = self._reader.trailing_data[0]

    async def _event(self) -> object:
        assert self._reader is not None
        while (event := self._reader.next_event()) is h11.NEED_DATA:
            self._reader.receive_data(await self.stream.receive_some(PIECE))
        return event

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, status: int, body: bytes = b"", *lines: str) -> None:
        more = "".join(f"{line}\r\n" for line in lines)
        await self.send(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)


Handler = Callable[[Link, Seen], Awaitable[None]]


@dataclass
class Upstream:
    """`handlers`: by path, what answers; the default is the request as JSON. `accepts`: which tokens; others are
    answered 401."""

    folder: Path
    seen: list[Seen] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    handlers: dict[str, Handler] = field(default_factory=dict)
    accepts: Callable[[str], bool] = lambda _: True
    port: int = 0
    connections: int = 0
    open: int = 0
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def on(self, path: str, handler: Handler) -> None:
        self.handlers[path] = handler

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.ca_file.chmod(0o644)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        listeners = await trio.open_ssl_over_tcp_listeners(
            0, context, host="127.0.0.1", https_compatible=True, backlog=2_000
        )
        self.port = listeners[0].transport_listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._serve, listeners, handler_nursery=nursery, task_status=task_status)

    async def _serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        self.open += 1
        link = Link(self.connections, stream)
        try:
            while not link.closes and (seen := await link.request()) is not None:
                self.seen.append(seen)
                handler = self.handlers.get(seen.target.partition("?")[0], echo)
                if not self.accepts(seen.token):
                    handler = refuse
                await handler(link, seen)
        except h11.RemoteProtocolError as error:
            self.bad.append(str(error))
        except End:
            with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(1):
                transport, _ = await stream.unwrap()  # who unwraps it closes what was beneath
                await trio.aclose_forcefully(transport)
        except (Reset, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.1):
                await trio.aclose_forcefully(stream)


class End(Exception):
    """The handler ends the connection, as TLS wants it."""


class Reset(Exception):
    """The handler breaks the connection."""


async def echo(link: Link, seen: Seen) -> None:
    await link.body(seen)
    said = {
        "method": seen.method,
        "target": seen.target,
        "headers": seen.headers,
        "size": seen.size,
        "digest": seen.digest,
    }
    await link.answer(200, b"" if seen.method == "HEAD" else json.dumps(said).encode())


async def refuse(link: Link, seen: Seen) -> None:
    await link.body(seen)
    await link.answer(401, b"who are you?", "WWW-Authenticate: Bearer")
