# One request of a client on its way to the upstream, and the answer on its way back. The token is added here, to this
# one request, and nowhere else.
from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from http import HTTPStatus

import trio
from brokerd_client import BrokerError, Token

from brokerd.config.proxies import ProxySettings
from brokerd.core.http import bodies
from brokerd.core.http.bodies import LAST_CHUNK, Body, CountedBody, EndlessBody, chunk
from brokerd.core.http.forwarding import NotForwarded, request_lines, response_lines, upgrades
from brokerd.core.http.heads import BadHead, RequestHead, ResponseHead, read_response
from brokerd.core.ports import TransportError
from brokerd.edge.http.wire import Broken, Wire
from brokerd.proxy.answers import CONTINUE, of_broker
from brokerd.proxy.streams import ClientGone, Incoming, buffer, tunnel
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.upstreams import UpstreamConnections

HELD = 64 * 1024  # bytes of a body that are kept, so that the request can be repeated
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 §9.2.2
SILENT = 3_600.0  # seconds that the upstream may be silent in the middle of an answer: it may be a stream of events
EARLY = 32  # answers 1xx before the answer itself; each costs time in which nobody else is served
REFUSAL_WITHIN = 10.0  # seconds that the body of a refusal may take, before the request is repeated
LOOK_AFTER = 1.0  # seconds of waiting for the upstream, after which the proxy looks whether the client has gone


@dataclass(slots=True)
class Course:
    """What became of a request. `status`: 0 if no answer was begun. `keep`: the client may send another request."""

    status: int = 0
    keep: bool = True


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request that the upstream was sent already, over a kept connection, with its whole body. `since`: by the event
    loop's clock. `data`: what came of the answer."""

    wire: Wire
    token: Token
    body: bytes
    since: float
    data: bytes


class Exchange:
    """Built for one request, and run once. `done` says how far it came, also if `run` raises."""

    def __init__(
        self,
        proxy: ProxySettings,
        tokens: LiveTokens,
        upstreams: UpstreamConnections,
        client: Incoming,
        head: RequestHead,
    ) -> None:
        self.done = Course(keep=head.keeps_alive)
        self._proxy = proxy
        self._tokens = tokens
        self._upstreams = upstreams
        self._client = client
        self._head = head
        self._body: Body = bodies.of_request(head)
        self._held: bytes | None = b""  # the whole body; None: it is too large to be held

    async def run(self, room: memoryview) -> None:
        """Raises NotForwarded, ClientGone, BadHead if the client breaks HTTP's rules, and Broken if the upstream
        breaks in the middle of its answer."""
        try:
            token = self._tokens.current(self._proxy.source) or await self._tokens.wait_for(self._proxy.source)
        except BrokerError as error:
            self.done.keep = self.done.keep and self._body.ended
            answer = of_broker(error, keep=self.done.keep, method=self._head.method)
            await self._begin(HTTPStatus.SERVICE_UNAVAILABLE, answer)
            return
        await self._hold(room)
        await self._forward(token, room)

    async def resume(self, sent: SentRequest, room: memoryview) -> None:
        """As `run`, for a request that was sent."""
        self._body, self._held = CountedBody(0), sent.body
        await self._forward(sent.token, room, sent)

    async def _begin(self, status: int, data: bytes) -> None:
        self.done.status = status
        await self._client.wire.send(data)

    def _failed(self, status: HTTPStatus, why: object) -> NotForwarded:
        self.done.keep = False
        return NotForwarded(status, "upstream", f"{self._proxy.upstream.host}: {why}")

    # -- the body of the request

    async def _hold(self, room: memoryview) -> None:
        """Read a body that is short enough to be held."""
        if not self._head.has_body:
            return
        if self._head.framing.length is None or self._head.framing.length > HELD:
            self._held = None
            return
        await self._welcome()
        pieces = []
        while not self._body.ended:
            pieces.append(bytes(await self._client.piece(self._body, room)))
        self._held = b"".join(pieces)

    async def _welcome(self) -> None:
        """The client may wait for a word before it sends the body."""
        if self._head.framing.expects and not self._client.has_ahead:
            await self._client.wire.send(CONTINUE)

    async def _upload(self, upstream: Wire) -> bool:
        """A body that is not held, as it comes. If the upstream reads no more, it may have answered already. Returns
        whether all of it has left."""
        chunked = self._head.framing.length is None
        await self._welcome()
        with buffer() as room, contextlib.suppress(Broken):
            while not self._body.ended:
                piece = await self._client.piece(self._body, room)
                await upstream.send(chunk(piece) if chunked and piece else piece)
            if chunked:
                await upstream.send(LAST_CHUNK)
            return True
        return False

    # -- to the upstream

    async def _forward(self, token: Token, room: memoryview, sent: SentRequest | None = None) -> None:
        """Send the request, unless it was `sent`: once more with another token if the first is refused, and once more
        over a new connection if a kept one has broken meanwhile and repeating is safe."""
        fresh = repeated = False
        while True:
            kept = sent.wire if sent else None if fresh else self._upstreams.take_kept()
            try:
                wire = kept or await self._upstreams.open(self._client.turn)
            except TransportError as error:
                raise self._failed(HTTPStatus.BAD_GATEWAY, error.reason) from None
            before, sent = sent, None
            upstream, clean = Incoming(wire, self._client.turn, before.data if before else b""), False
            try:
                try:
                    if before is None:
                        await wire.send(self._message(token))
                    if self._held is None:
                        clean = await self._stream_both(upstream, room)
                        return
                    answer = await self._answer_of(upstream, room, since=before.since if before else None)
                except Broken as error:
                    if self.done.status:
                        raise
                    is_safe = self._held is not None and self._head.method in IDEMPOTENT
                    if kept and is_safe and not upstream.received:
                        fresh = True
                        continue
                    raise self._failed(HTTPStatus.BAD_GATEWAY, error) from None
                body = bodies.of_response(answer, self._head.method)
                begun: list[bytes] = []
                if answer.status == HTTPStatus.UNAUTHORIZED and not repeated:
                    repeated = True
                    if await self._short(upstream, body, begun, room):
                        with contextlib.suppress(BrokerError):
                            token = await self._tokens.replaced(self._proxy.source, token)
                            clean = can_stay(answer, body)
                            continue
                clean = await self._back(upstream, answer, body, begun, room)
                return
            finally:
                if clean and not upstream.has_ahead:
                    self._upstreams.keep(wire)
                else:
                    wire.close()

    def _message(self, token: Token) -> bytes:
        """The head, and the body if it is held."""
        ((name, value),) = token.header.items()
        lines = request_lines(self._head, self._proxy.upstream, (name, value))
        if self._held is None and self._head.framing.length is None:
            return lines + b"Transfer-Encoding: chunked\r\n\r\n"
        if self._head.framing.length is not None:
            lines += b"Content-Length: %d\r\n" % self._head.framing.length
        return lines + b"\r\n" + (self._held or b"")

    async def _stream_both(self, upstream: Incoming, room: memoryview) -> bool:
        """The body goes up while the answer may come down already. Returns whether the upstream's connection can be
        used again."""
        clean = uploaded = False
        lost: Exception | None = None
        patience = trio.CancelScope()  # it counts from the end of the body

        async def up() -> None:
            nonlocal lost, uploaded
            try:
                uploaded = await self._upload(upstream.wire)
                patience.deadline = trio.current_time() + self._proxy.timeout
                await self._client.wire.wait_until_gone()
                lost = ClientGone("connection closed")
            except (ClientGone, BadHead) as error:
                lost = error
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(up)
            try:
                answer = await self._answer_of(upstream, room, patience)
                self.done.keep = self.done.keep and self._body.ended
                body = bodies.of_response(answer, self._head.method)
                clean = await self._back(upstream, answer, body, [], room, watched=False)
            except (Broken, NotForwarded, ClientGone) as error:
                lost = error
            nursery.cancel_scope.cancel()
        if lost is not None:
            raise lost
        return clean and uploaded

    # -- back to the client

    async def _answer_of(
        self,
        upstream: Incoming,
        room: memoryview,
        patience: trio.CancelScope | None = None,
        since: float | None = None,
    ) -> ResponseHead:
        """The head of the answer; 1xx before it are dropped. `patience`: how long to wait, if somebody else watches the
        client. `since`: the end of the request, if that was not just now. Raises Broken, NotForwarded, ClientGone."""
        watched = patience is None
        if patience is None:
            since = trio.current_time() if since is None else since
            patience = trio.CancelScope(deadline=since + self._proxy.timeout)
        with patience:
            for _ in range(EARLY + 1):
                if not upstream.has_ahead:
                    await self._readable(upstream.wire, watched=watched)
                try:
                    data = await upstream.head(room)
                    if not data:
                        raise Broken("connection closed before an answer")
                    answer = read_response(data)
                except BadHead as error:
                    raise self._failed(HTTPStatus.BAD_GATEWAY, error) from None
                if answer.status >= 200 or answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
                    return answer
            raise self._failed(HTTPStatus.BAD_GATEWAY, f"more than {EARLY} answers 1xx before its answer")
        raise self._failed(HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {self._proxy.timeout:g} s")

    async def _short(self, upstream: Incoming, body: Body, begun: list[bytes], room: memoryview) -> bool:
        """Read the body of a refusal, if it is short. Returns whether that was all of it."""
        size = 0
        try:
            with trio.move_on_after(REFUSAL_WITHIN) as scope:
                while not body.ended and size <= HELD:
                    begun.append(bytes(await upstream.piece(body, room)))
                    size += len(begun[-1])
        except (Broken, BadHead) as error:
            raise self._failed(HTTPStatus.BAD_GATEWAY, error) from None
        if scope.cancelled_caught:  # what was read last may be lost, so the answer cannot be passed on
            words = f"its answer 401 did not end within {REFUSAL_WITHIN:g} s"
            raise self._failed(HTTPStatus.GATEWAY_TIMEOUT, words)
        return body.ended

    async def _back(
        self,
        upstream: Incoming,
        answer: ResponseHead,
        body: Body,
        begun: list[bytes],
        room: memoryview,
        *,
        watched: bool = True,
    ) -> bool:
        """The answer goes to the client. `begun`: what was read of the body before. Returns whether the upstream's
        connection can be used again."""
        if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
            await self._switch(upstream, answer)
            return False
        chunked = not answer.ends_at_head(self._head.method) and answer.framing.length is None
        if chunked and self._head.minor == 0:
            chunked = self.done.keep = False
        self.done.status = answer.status
        client = self._client.wire
        waiting = self._lines(answer, chunked=chunked)
        waiting += b"".join(chunk(each) if chunked and each else each for each in begun)
        while not body.ended:
            if not upstream.has_ahead and not upstream.wire.has_ahead:
                if waiting:
                    await client.send(waiting)
                    waiting = b""
                await self._more(upstream.wire, watched=watched)
            try:
                piece = await upstream.piece(body, room)
            except BadHead as error:
                raise Broken(str(error)) from None
            if piece:
                piece = chunk(piece) if chunked else piece
                await client.send(waiting + piece if waiting else piece)
                waiting = b""
        await client.send(waiting + (LAST_CHUNK if chunked else b""))
        return can_stay(answer, body)

    def _lines(self, answer: ResponseHead, *, chunked: bool) -> bytes:
        lines = response_lines(answer, self._proxy.upstream)
        if chunked:
            lines += b"Transfer-Encoding: chunked\r\n"
        else:
            lines += length_line(answer)
        if not self.done.keep:
            lines += b"Connection: close\r\n"
        elif self._head.minor == 0:
            lines += b"Connection: keep-alive\r\n"
        return lines + b"\r\n"

    async def _switch(self, upstream: Incoming, answer: ResponseHead) -> None:
        if not upgrades(self._head):
            raise self._failed(HTTPStatus.BAD_GATEWAY, "it changes to another protocol unasked")
        self.done.keep = False
        await self._begin(answer.status, response_lines(answer, self._proxy.upstream) + b"\r\n")
        await tunnel(self._client, upstream)

    # -- waiting for the upstream

    async def _more(self, wire: Wire, *, watched: bool) -> None:
        """Wait for more of the answer. Raises Broken, ClientGone."""
        with trio.move_on_after(SILENT) as scope:
            await self._readable(wire, watched=watched)
        if scope.cancelled_caught:
            raise Broken(f"silent for {SILENT:g} s in the middle of an answer")

    async def _readable(self, wire: Wire, *, watched: bool) -> None:
        """Wait until the upstream has sent something. `watched`: meanwhile the client may go. Raises ClientGone."""
        if wire.has_ahead:
            return
        with trio.move_on_after(LOOK_AFTER if watched else math.inf) as scope:
            await trio.lowlevel.wait_readable(wire.sock)
        if not scope.cancelled_caught:
            return
        gone = False

        async def watch() -> None:
            nonlocal gone
            await self._client.wire.wait_until_gone()
            gone = True
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.lowlevel.wait_readable(wire.sock)
            nursery.cancel_scope.cancel()
        if gone:
            raise ClientGone("connection closed")


def length_line(answer: ResponseHead) -> bytes:
    """Of an answer that is not chunked."""
    if answer.framing.length is None or answer.status == 204:
        return b""
    return b"Content-Length: %d\r\n" % answer.framing.length


def can_stay(answer: ResponseHead, body: Body) -> bool:
    """Whether the upstream's connection can take another request."""
    return answer.keeps_alive and not isinstance(body, EndlessBody)
