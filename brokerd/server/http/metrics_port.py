# Metrics over TCP, for a scraper that cannot use the Unix socket: /metrics, /livez and /readyz, and nothing else.
# Whoever reaches the port is answered, so no answer has a token, the name of a caller, or the reason for a failure.
from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address

import trio

from brokerd.core.errors import Code, Failure
from brokerd.edge.http.requests import BadHttp, HttpReader, HttpRequest
from brokerd.server import readiness_checks as checks
from brokerd.server.http.messages import TEXT, Refused, final_answer
from brokerd.server.scrape import Scrape
from brokerd.telemetry.exposition import CONTENT_TYPE

MOST = 16  # connections; with one more, the oldest one ends
PACE = 0.05  # seconds between two connections that are accepted: a crowd at the port takes no time from callers
WITHIN = 30.0  # seconds for a whole connection
KEPT = 1.0  # seconds for which the text of a scrape serves others too
READ = 4 * 1024  # bytes that are read at once

Answer = tuple[HTTPStatus, str, bytes]


@dataclass(eq=False, repr=False)
class MetricsPort:
    """One listener. `host_name`: the machine's."""

    scrape: Scrape
    host_name: str
    _open: dict[trio.CancelScope, None] = field(default_factory=dict)  # the oldest first
    _writing: trio.Lock = field(default_factory=trio.Lock)
    _text: bytes = b""
    _text_at: float = float("-inf")

    async def run(self, listener: socket.socket) -> None:
        """Accept for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    nursery.start_soon(self._serve, trio.SocketStream(trio.socket.from_stdlib_socket(connection)))
                except OSError:
                    pass  # the client has gone, or no descriptor is left: the next look comes in a moment
                await trio.sleep(PACE)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if len(self._open) >= MOST:
            next(iter(self._open)).cancel()
        async with stream:
            with trio.move_on_after(WITHIN) as scope:
                self._open[scope] = None
                try:
                    await self._converse(stream)
                except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                    pass  # the client has gone
                except Exception:
                    self.scrape.events.bug("scrape")
                finally:
                    del self._open[scope]

    async def _converse(self, stream: trio.abc.Stream) -> None:
        """One request, and the answer to it."""
        reader = HttpReader(short=False)
        try:
            while (request := next(iter(reader), None)) is None:
                if not (data := await stream.receive_some(READ)):
                    return
                reader.feed(bytes(data))
            status, content_type, body = await self._answer(request)
            data, _ = reader.answer(status, content_type, body, Connection="close")
        except BadHttp as error:
            data = final_answer(Failure(Code.BAD_REQUEST, str(error)))
        await stream.send_all(data)

    async def _answer(self, request: HttpRequest) -> Answer:
        try:
            check(request, self.host_name)
        except Refused as refused:
            return refused.status, TEXT, f"{refused}\n".encode()
        return await PATHS[request.path](self)

    async def _metrics(self) -> Answer:
        async with self._writing:
            if trio.current_time() - self._text_at > KEPT:
                self._text = (await self.scrape.text(lambda _: True)).encode()
                self._text_at = trio.current_time()
            return HTTPStatus.OK, CONTENT_TYPE, self._text

    async def _live(self) -> Answer:
        return HTTPStatus.OK, TEXT, b"live\n"

    async def _ready(self) -> Answer:
        found = checks.checked(self.scrape.broker, self.scrape.events)
        status = HTTPStatus.OK if checks.is_ready(found) else HTTPStatus.SERVICE_UNAVAILABLE
        return status, TEXT, checks.as_text(found, reasons=False).encode()


PATHS: dict[str, Callable[[MetricsPort], Awaitable[Answer]]] = {
    "/metrics": MetricsPort._metrics,
    "/livez": MetricsPort._live,
    "/readyz": MetricsPort._ready,
}


def check(request: HttpRequest, host_name: str) -> None:
    """Raises Refused for what this port does not answer. A page in a browser may have a name of its own point to this
    machine (DNS rebinding); then that name stands in Host."""
    if request.origin is not None:
        raise Refused(HTTPStatus.FORBIDDEN, "a request with Origin comes from a page in a browser")
    if not is_this_machine(request.host, host_name):
        words = f"expected the IP address of this machine, localhost or {host_name} in Host; write that into the target"
        raise Refused(HTTPStatus.FORBIDDEN, words)
    if request.path not in PATHS:
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no such path here; known: {', '.join(PATHS)}")
    if request.method != "GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "expected the method GET")


def is_this_machine(host: str, host_name: str) -> bool:
    """Whether Host names an address, or the machine by a name that its administrator chose. HTTP/1.0 may have none."""
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") in ("", "localhost", host_name.lower()):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
