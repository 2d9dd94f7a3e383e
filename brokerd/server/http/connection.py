# One client that speaks HTTP: each request becomes a request for one method of the protocol, and the result or failure
# of that becomes the HTTP answer.
from __future__ import annotations

import contextlib
import select
import socket
from typing import Any

import trio
from brokerd_client.errors import ProtocolError

from brokerd.core.errors import Code, Failure
from brokerd.edge.http.requests import BadHttp, HttpReader, HttpRequest
from brokerd.server.connection import OWN_FAULT, ClientConnection
from brokerd.server.http.messages import (
    EVENTS,
    JSON,
    STATUS,
    Refused,
    Written,
    as_json,
    failure_body,
    final_answer,
    retry_header,
)
from brokerd.server.http.routes import Route, event_of, route_of
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.status_watch import CHANGED
from brokerd.server.session import CallerSession

KEEP_ALIVE_SCOPE = 0  # its number among the scopes; those of requests that wait are larger
KEEP_ALIVE = 15.0  # seconds between comments in a stream of events, so that no proxy on its way ends it


class HttpClientConnection(ClientConnection):
    """Answers requests in their order. `_stream`: what is asked for is a stream of events, and no other answer follows
    it; `_begun`: its head is written."""

    _reader: HttpReader
    _stream = False
    _begun = False
    _lost: frozenset[object] = frozenset()  # watched grants that the client may not have any more
    _ended = False  # the client sends nothing more
    _number = KEEP_ALIVE_SCOPE  # of the last request that waited; its scope has the same one
    _answered = False  # a request that waited has its answer: look at what came behind it
    _has_asked = False  # before; many ask only once, so nothing is remembered of that
    _reading: trio.CancelScope | None = None  # of reading ahead; the answer ends it

    @staticmethod
    def _new_reader() -> HttpReader:
        return HttpReader()

    @staticmethod
    def refusal(failure: Failure) -> bytes:
        return final_answer(failure)

    def _rejection(self, failure: Failure) -> bytes:
        return b"" if self._begun else final_answer(failure)

    def _feed(self, data: bytes) -> None:
        if self._stream:
            raise ProtocolError("expected nothing behind a request for events; open another connection")
        self._reader.feed(data)

    @property
    def _reads_at_once(self) -> bool:
        return self._reader.is_at_rest and not (self._outbox or self._scopes or self._stream or self._answered)

    def answer_at_once(self, batch: object) -> bool:
        """Only what goes the short way (short_way.py). `_arrived` says that the connection is at rest."""
        data, way, session = self._arrived, self._server.short_way, self._session
        if not data or way is None or session is None or (answer := way.answer_http(session, data, batch)) is None:
            return False
        self._arrived = None
        return self._send_alone(answer)

    async def _next(self, session: CallerSession) -> bool:
        """While a request waits for its answer, the client is read from as far as there is room."""
        if not self._waits and not self._answered:
            return not self._ended and await super()._next(session)
        if not self._answered:
            with trio.CancelScope() as self._reading:
                if self._ended or self._reader.is_full:
                    await trio.sleep_forever()
                await trio.lowlevel.wait_readable(self._sock)
                return await self._receive(session)
        self._answered = False
        return await self._answer_all(session, counted=0)

    async def _finish(self) -> bool:
        """A client may end its sending and wait for the answer."""
        self._ended = True
        if self._outbox and not self._waits and not await self._flush():
            return False  # the rest of an answer that went the short way
        return (self._waits or self._answered) and not self._stream and not _has_hung_up(self._sock)

    async def _answer_all(self, session: CallerSession, counted: int) -> bool:
        try:
            goes_on = await super()._answer_all(session, counted)
        except BadHttp as error:
            raise ProtocolError(str(error)) from None
        if self._reader.wants_body:
            self._outbox += self._reader.proceed()
            return goes_on and await self._flush()
        return goes_on

    def _take(self, session: CallerSession, request: HttpRequest) -> None:
        try:
            route, params = route_of(request)
            if route.streams and self._reader.has_more:
                raise Failure(Code.BAD_REQUEST, "expected nothing behind a request for events")
            answer = self._server.dispatcher.answer(session, route.call, params)
            self._stream = route.streams
            if isinstance(answer, AnswerLater):
                self._account.wait(answer.weight)
                self._number = number = self._number + 1  # the answer to the one before may still be leaving
                self._scopes[number] = self._server.start(lambda: self._answer(session, number, route, answer))
            else:
                before = len(self._outbox)
                self._write(route, answer)
                if route.repeats:
                    self._remember(session, params, bytes(self._outbox[before:]))
        except (Refused, Failure) as failure:
            self._fail(failure)

    def _remember(self, session: CallerSession, params: dict[str, Any], answer: bytes) -> None:
        data, way = self._reader.plain, self._server.short_way
        if self._has_asked and data is not None and way is not None:
            way.remember_http(session, data, params, answer)
        self._has_asked = True

    @property
    def _waits(self) -> bool:
        """Whether a request waits, or its answer has not left yet."""
        return any(number != KEEP_ALIVE_SCOPE for number in self._scopes)

    async def _drawn(self, session: CallerSession, route: Route, result: Any) -> Written:
        """What takes long to write. Others have their turn meanwhile, so the caller may lose its rights (law 9)."""
        assert route.cost is not None
        before = self._server.dispatcher.rights_of(session)
        self._account.charge(route.cost(result), trio.current_time())
        written: Written = await route.write(result)  # type: ignore[misc]
        if not await self._has_same_rights(before):
            raise Failure(Code.UNAVAILABLE, "the rules or the caller changed meanwhile; ask again", retry_after=1.0)
        return written

    async def _answer(self, session: CallerSession, number: int, route: Route, answer: AnswerLater) -> None:
        room = self._server.large(self._account) if answer.is_large else contextlib.nullcontext()
        try:
            async with room:
                try:
                    result = await answer.bring()
                    self._write(route, result if route.cost is None else await self._drawn(session, route, result))
                except Failure as failure:
                    self._fail(failure)
                except Exception:
                    self._server.dispatcher.events.bug("request")
                    self._fail(Failure(Code.INTERNAL, OWN_FAULT))
                await self._flush()
        finally:
            del self._scopes[number]
            self._account.answered(answer.weight)
            self._answered = True
            if self._reading is not None:
                self._reading.cancel()

    def _write(self, route: Route, result: Any) -> None:
        if route.streams:
            self._begun = True
            self._outbox += self._reader.begin(200, EVENTS)
            self._scopes[KEEP_ALIVE_SCOPE] = self._server.start(self._keep_alive)
            return
        written = result if isinstance(result, Written) else route.write(result)
        assert isinstance(written, Written)
        self._send_answer(written.status, written.content_type, written.body, **written.headers)

    def _fail(self, failure: Refused | Failure) -> None:
        self._stream = False
        if isinstance(failure, Refused):
            body = as_json({"error": "bad_request", "message": str(failure)})
            self._send_answer(failure.status, JSON, body, **failure.headers)
        else:
            self._send_answer(STATUS[failure.code], JSON, failure_body(failure), **retry_header(failure))

    def _send_answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        data, again = self._reader.answer(status, content_type, body, **headers)
        self._outbox += data
        if not again:
            self._last = True

    async def _notify(self, method: str, params: dict[str, object]) -> bool:
        """The stream ends when the client may have none of its grants any more: then it learns of no other change."""
        self._outbox += self._reader.piece(event_of(method, params))
        if method == CHANGED:
            return await self._flush()
        grant, lost = params["grant"], params.get("code") == Code.UNKNOWN_GRANT
        self._lost = self._lost | {grant} if lost else self._lost - {grant}
        if self._session is not None and self._lost >= self._session.watches.callbacks.keys():
            self._scopes.pop(KEEP_ALIVE_SCOPE).cancel()
            self._outbox += self._reader.end()
            if await self._flush():
                self._sock.shutdown(socket.SHUT_RDWR)  # and our reading ends
            return False
        return await self._flush()

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(KEEP_ALIVE)
            self._outbox += self._reader.piece(b":\n\n")
            if not await self._flush():
                return


def _has_hung_up(sock: socket.socket) -> bool:
    """Whether the client has closed the connection, and not only ended its sending."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
