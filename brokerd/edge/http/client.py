# The HTTP/1.1 client for all dialects: the Http port of core, with h11 on trio streams. It keeps connections open for
# later requests. It repeats no request and follows no redirect. broker/provider.py limits how many requests run.
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import h11
import trio

from brokerd import __version__
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import AnswerTooLarge, Clock, TransportError
from brokerd.edge.http.answer import AnswerReader, BadAnswer, TimedOut, TooLarge
from brokerd.edge.http.connection import Attempt, HttpConnection, HttpSettings, Opener, Origin, Stage, check, split_url
from brokerd.edge.http.dial import Lookup, system_lookup
from brokerd.edge.http.lenient_reading import decompressed
from brokerd.edge.http.proxy import Proxy, refused
from brokerd.edge.http.tls import broken_reason

__all__ = ["HttpClient", "HttpSettings", "check"]


class HttpClient:
    """The client for one provider. It reads files and opens connections only when a request needs them."""

    def __init__(
        self,
        settings: HttpSettings,
        clock: Clock,
        *,
        environ: Mapping[str, str] = os.environ,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._opener = Opener(settings, clock, environ, lookup)
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send one request and read its answer. Raises TransportError."""
        # A new exception is raised, outside of the except block. The first one has a __context__ and a traceback whose
        # frames quote requests and answers, and a log could print those (law 11).
        try:
            return await self._within_deadline(request)
        except TransportError as error:
            failure = type(error)(error.reason, sent=error.sent)
        raise failure

    @property
    def certificate_ends(self) -> float | None:
        """When the certificate of the server expires, in Unix seconds; None: not known."""
        return self._opener.certificate_ends

    def sweep(self) -> None:
        """Close the connections that have been idle for too long. Every send does this. The daemon does it regularly
        too; otherwise the connections to a provider that gets one request an hour would stay open for an hour."""
        oldest = self._clock.now().boot - self._settings.idle_timeout
        for origin, idle in list(self._idle.items()):
            for connection in [each for each in idle if each.idle_since <= oldest]:
                idle.remove(connection)
                connection.tcp.close()
            if not idle:
                del self._idle[origin]

    async def aclose(self) -> None:
        """Close the kept connections. Requests under way go on; their connections are closed when they end."""
        self._closed = True
        for connection in [each for idle in self._idle.values() for each in idle]:
            connection.tcp.close()
        self._idle.clear()
        await trio.lowlevel.checkpoint()

    async def _within_deadline(self, request: Request) -> Response:
        origin, target = split_url(request.url)
        attempt = Attempt(origin.endpoint, notice=request.notice)
        limit = self._settings.timeouts(request.sends_stored).total
        with trio.move_on_after(limit):
            return await self._exchange(request, origin, target, attempt)
        raise attempt.failed(f"timed out after {limit:g} s {attempt.doing}")

    async def _exchange(self, request: Request, origin: Origin, target: str, attempt: Attempt) -> Response:
        # For https the proxy opens a tunnel. For plain http the request is sent to the proxy (RFC 9112 section 3.2.2).
        proxy = None if origin.secure else self._opener.route(origin)
        message = _message(request, origin, target, proxy, attempt)
        connection = None if request.sends_stored or request.guarded else await self._kept(origin)
        if connection is not None:
            attempt.begins(Stage.CONNECT, "using a connection that was kept open")
        else:
            connection = await self._opener.open(origin, attempt, guarded=request.guarded)
        keep = False
        try:
            response, keep = await self._converse(connection, message, request, attempt)
            if proxy and response.status == 407:
                raise TransportError(str(refused(407, proxy, origin.endpoint)), sent=True)
            return response
        except BaseException:
            keep = False
            raise
        finally:
            if keep:
                self._keep(origin, connection)
            else:
                connection.tcp.close()

    async def _converse(
        self, connection: HttpConnection, message: h11.Request, request: Request, attempt: Attempt
    ) -> tuple[Response, bool]:
        """The answer, and whether the connection can be used for another request."""
        protocol, limits = connection.protocol, self._settings.limits(request.sends_stored)
        try:
            events = (message, h11.Data(data=request.body), h11.EndOfMessage())
            data = b"".join(protocol.send(event) or b"" for event in events)
        except h11.LocalProtocolError:  # its text quotes the request
            raise attempt.failed("the request breaks HTTP's rules: is its Content-Length right?") from None
        attempt.tcp, attempt.taken_before = connection.tcp, connection.tcp.taken
        attempt.begins(Stage.REQUEST, "sending the request")
        if request.last_look is not None:
            request.last_look()
        sent_at = self._clock.now()
        await self._send_all(connection.stream, data, attempt)
        attempt.begins(Stage.REQUEST, "waiting for an answer")
        reader = AnswerReader(protocol, connection.stream, limits)
        head, cut = await self._answer(reader, request, attempt)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        content, coding = reader.body_so_far, next((value for name, value in headers if name == "content-encoding"), "")
        if (plain := decompressed(content, coding, limits.body)) is not None:
            (content, is_whole), headers = plain, [each for each in headers if each[0] != "content-encoding"]
            if not is_whole and cut is None:
                cut = _cut(attempt.failed("the answer's compressed body breaks off"), head, request)
        now, public = self._clock.now(), connection.is_public
        response = Response(head.status_code, tuple(headers), content, sent_at, now, public, cut)
        return response, not (request.sends_stored or reader.repaired) and connection.may_be_kept()

    async def _answer(
        self, reader: AnswerReader, request: Request, attempt: Attempt
    ) -> tuple[h11.Response, str | None]:
        """Read head and body; `reader` has the body. Returns the head, and why the answer is incomplete if it may hold
        tokens all the same (law 3). Raises TransportError for every other incomplete answer."""
        head: h11.Response | None = None
        is_too_large = False
        try:
            limit = self._settings.timeouts(request.sends_stored).answer
            with trio.move_on_after(limit):
                try:
                    head = await reader.head()
                    await reader.body()
                    return head, None
                except (trio.Cancelled, TimedOut):
                    if (late := await _at_hand(reader, request, attempt, head)) is None:
                        raise
                    return late, None
            words = f"timed out after {limit:g} s waiting for an answer"
        except BadAnswer as error:
            words, is_too_large = str(error), isinstance(error, TooLarge)
        if reader.is_tls or (reader.closed_unanswered and not request.url.startswith("https:")):
            words += "; does it speak https?"
        failure = attempt.failed(words)
        if is_too_large:
            failure = AnswerTooLarge(failure.reason, sent=failure.sent)
        reason = _cut(failure, head, request)
        assert head is not None
        return head, reason

    async def _send_all(self, stream: trio.abc.SendStream, data: bytes, attempt: Attempt) -> None:
        with trio.move_on_after(self._settings.read_timeout):
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError as error:
                raise attempt.failed(f"{broken_reason(error)} while the request was sent") from None
            return
        raise attempt.failed(f"timed out after {self._settings.read_timeout:g} s sending the request")

    async def _kept(self, origin: Origin) -> HttpConnection | None:
        self.sweep()
        while idle := self._idle.get(origin):
            connection = idle.pop()
            if await connection.is_quiet():
                return connection
        return None

    def _keep(self, origin: Origin, connection: HttpConnection) -> None:
        idle = self._idle.setdefault(origin, [])
        if self._closed or len(idle) >= self._settings.max_idle:
            connection.tcp.close()
            return
        connection.protocol.start_next_cycle()
        connection.idle_since = self._clock.now().boot
        idle.append(connection)


async def _at_hand(
    reader: AnswerReader, request: Request, attempt: Attempt, head: h11.Response | None
) -> h11.Response | None:
    """The whole answer, if it is here though its time is over: this process or the whole machine stood still while it
    came, and it may have a new refresh token (law 3)."""
    if not request.sends_stored or attempt.tcp is None:
        return None
    nothing = contextlib.suppress(trio.WouldBlock, BadAnswer)
    with nothing, attempt.tcp.without_waiting(), trio.CancelScope(shield=True):
        found = head or await reader.head()
        await reader.body()
        return found
    return None


def _cut(failure: TransportError, head: h11.Response | None, request: Request) -> str:
    """Why the answer is incomplete, if it may hold tokens all the same (law 3). Raises the failure for any other."""
    if head is None or not request.sends_stored or not 200 <= head.status_code < 300:
        raise failure
    return failure.reason


def _message(request: Request, origin: Origin, target: str, proxy: Proxy | None, attempt: Attempt) -> h11.Request:
    given = [_field(name, value, attempt) for name, value in request.headers]
    names = {name.lower() for name, _ in given}
    if reserved := names & RESERVED:
        raise attempt.failed(f"header {min(reserved).decode()} is set by the HTTP client and cannot be chosen")
    fields = [(b"host", origin.host_header.encode())]
    if b"user-agent" not in names:
        fields.append((b"user-agent", USER_AGENT.encode()))
    fields.append((b"accept-encoding", b"identity"))
    fields += given
    if b"content-length" not in names and (request.body or request.method in WITH_BODY):
        fields.append((b"content-length", str(len(request.body)).encode()))
    if request.sends_stored:
        fields.append((b"connection", b"close"))
    if proxy:
        target = f"http://{origin.host_header}{target}"
        if proxy.login:
            fields.append((b"proxy-authorization", proxy.login.reveal().encode()))
    try:
        return h11.Request(method=request.method.encode(), target=target.encode(), headers=fields)
    except h11.LocalProtocolError:  # its text quotes the request
        raise attempt.failed("the request breaks HTTP's rules: a header's name, or the method") from None


def _field(name: str, value: str, attempt: Attempt) -> tuple[bytes, bytes]:
    if not name.isascii() or not name.isprintable():
        raise attempt.failed("a header's name holds characters that HTTP cannot carry")
    if not value.isprintable() or value != value.strip():
        raise attempt.failed(f"header {name} holds characters that HTTP cannot carry; does a secret end in a newline?")
    return name.encode(), value.encode()


USER_AGENT = f"brokerd/{__version__}"
WITH_BODY = ("POST", "PUT", "PATCH")  # Content-Length is sent even if it is 0 (RFC 9110 section 8.6)
RESERVED = {b"host", b"connection", b"transfer-encoding", b"accept-encoding", b"upgrade", b"expect", b"te"}
