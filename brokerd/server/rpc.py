# One client that speaks MessagePack-RPC (docs/protocol.md): cuts its bytes into requests, has the methods answer them,
# and packs the answers.
from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Awaitable

import trio
from brokerd_client.errors import ProtocolError
from brokerd_client.wire import Reader, pack_error, pack_notification, pack_result, read_request

from brokerd.core.access.admission import RETRY_AFTER
from brokerd.core.errors import Code, Failure
from brokerd.server.connection import LARGE, OWN_FAULT, TURN, ClientConnection
from brokerd.server.http.messages import final_answer
from brokerd.server.methods.method import MAX_IN_FLIGHT, AnswerLater, AnswerWithDescriptor
from brokerd.server.session import CallerSession

HTTP = (b"GET /", b"POST /", b"PUT /", b"HEAD /", b"DELETE /", b"OPTIONS ", b"CONNECT ", b"PATCH /")
HTTP_ELSEWHERE = (
    "this socket speaks MessagePack-RPC. HTTP has a socket of its own, if the operator has switched it on: "
    "curl --unix-socket /run/brokerd/http.sock (brokerd-http.socket, or [http] socket)"
)


class RpcConnection(ClientConnection):
    """Answers may come in another order than their requests."""

    _reader: Reader
    _first: bytes | None = None  # what the client said first
    _alone: bytes | None = None  # what has come, if it begins with a message
    _descriptors: tuple[tuple[int, int], ...] = ()  # those to send: before which byte of the outbox, and which
    _started = 0  # requests that were answered in a task of their own, each by its number

    @staticmethod
    def _new_reader() -> Reader:
        return Reader()

    @staticmethod
    def refusal(failure: Failure) -> bytes:
        return pack_error(None, failure.as_map())

    def _feed(self, data: bytes) -> None:
        if self._first is None:
            self._first = data[:8]  # many ask only once, so nothing is remembered of that
        else:
            self._alone = None if self._reader.partial else data
        self._reader.feed(data)

    @property
    def _reads_at_once(self) -> bool:
        return not self._outbox

    def answer_at_once(self, batch: object) -> bool:
        """A get that was answered before goes the short way (short_way.py)."""
        data, way, session, begun = self._arrived, self._server.short_way, self._session, self._reader.partial
        if not data or session is None or self._outbox or begun:
            return False
        self._arrived = None
        if way is not None and (answer := way.answer(session, data, batch)) is not None:
            return self._send_alone(answer)
        self._feed(data)
        for number, request in enumerate(self._reader, 1):
            self._deadline = math.inf
            if number > 1:
                self._account.charge(1.0, trio.current_time())
            self._take(session, request)
            if number == TURN or len(self._outbox) > LARGE:
                self._unfinished = True
                return False
        if self._reader.partial:
            self._unfinished = True
            return False
        return self._send()

    def begin_at_once(self) -> bool:
        if not self._peer.has_names:
            return False
        self._open()
        try:
            must_wait = self._account.delay(trio.current_time())  # for its turn, if the client sends something
            if not must_wait and self.read_at_once() and not self.answer_at_once(object()):
                return False
            self._server.waiting.rest(self._sock.fileno(), self)
        except Exception as error:
            self._error = error
            return False
        return True

    def go_on(self, error: Exception | None) -> None:
        if error is None and self._arrived == b"":
            self._server.end(self, self._account)  # the client has gone
        else:
            super().go_on(error)

    def _rejection(self, failure: Failure) -> bytes:
        """A client that speaks HTTP learns it in HTTP."""
        if failure.code == Code.BAD_REQUEST and self._first is not None and self._first.startswith(HTTP):
            return final_answer(Failure(Code.BAD_REQUEST, HTTP_ELSEWHERE))
        return self.refusal(failure)

    def _take(self, session: CallerSession, message: list[object]) -> None:
        """Answer a request at once if that is possible, otherwise in a task of its own."""
        try:
            number, method, params = read_request(message)
        except ProtocolError as error:
            if error.id is None:
                raise
            self._outbox += pack_error(error.id, Failure(Code.BAD_REQUEST, str(error)).as_map())
            return
        try:
            answer = self._server.dispatcher.answer(session, method, params)
            if isinstance(answer, AnswerLater):
                self._start(number, answer)
                return
            packed = self._packed_result(number, answer)
            self._outbox += packed
            if method == "get" and self._alone is not None and self._server.short_way is not None:
                self._server.short_way.remember(session, self._alone, number, params, packed)
        except Failure as failure:
            self._outbox += pack_error(number, failure.as_map())

    def _start(self, number: int, answer: AnswerLater) -> None:
        """Raises Failure if too many requests wait already."""
        if len(self._scopes) >= MAX_IN_FLIGHT:
            words = f"this connection has {MAX_IN_FLIGHT} unanswered requests, and no more are allowed"
            raise Failure(Code.LIMIT, f"{words}; read answers first", retry_after=RETRY_AFTER)
        self._account.wait(answer.weight)
        self._started += 1
        key = self._started
        room = self._server.large(self._account) if answer.is_large else contextlib.nullcontext()

        async def run() -> None:
            try:
                async with room:
                    self._outbox += await self._packed(number, answer)
                    await self._flush()
            finally:
                del self._scopes[key]
                self._account.answered(answer.weight)

        self._scopes[key] = self._server.start(run)

    async def _packed(self, number: int, answer: AnswerLater) -> bytes:
        try:
            return self._packed_result(number, await answer.bring())
        except Failure as failure:
            return pack_error(number, failure.as_map())
        except Exception:
            self._server.dispatcher.events.bug("request")
            return pack_error(number, Failure(Code.INTERNAL, OWN_FAULT).as_map())

    def _packed_result(self, number: int, answer: object) -> bytes:
        """It must go to the outbox before anything is awaited."""
        if isinstance(answer, AnswerWithDescriptor):
            self._descriptors = (*self._descriptors, (len(self._outbox), answer.descriptor))
            answer = answer.result
        return pack_result(number, answer)

    def _send_some(self) -> int:
        """A descriptor goes with the first byte of its answer, and with nothing of the next one's."""
        if not self._descriptors:
            return super()._send_some()
        (at, descriptor), *others = self._descriptors
        if at:
            sent = self._sock.send(self._outbox[:at])
        else:
            end = others[0][0] if others else len(self._outbox)
            sent = socket.send_fds(self._sock, [self._outbox[:end]], [descriptor])
            os.close(descriptor)
            self._descriptors = self._descriptors[1:]
        self._descriptors = tuple((at - sent, each) for at, each in self._descriptors)
        return sent

    def _drop(self) -> None:
        super()._drop()
        for _, descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = ()

    def _notify(self, method: str, params: dict[str, object]) -> Awaitable[bool]:
        self._outbox += pack_notification(method, params)
        return self._flush()
