# Connections: accepts them, learns who calls, cuts their bytes into requests, has the rules decide, and answers.
# What a method does is methods.py's matter. Bad input costs its sender only (law 13).
from __future__ import annotations

import errno
import math
import socket
from collections.abc import Awaitable, Callable

import trio
from brokerd_client.errors import ProtocolError
from brokerd_client.wire import Reader, pack_error, pack_notification, pack_result, read_request

from brokerd.audit import Audit
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Caller
from brokerd.edge.peer import attest
from brokerd.methods import MAX_IN_FLIGHT, Methods, Session
from brokerd.metrics import Metrics

READ = 4 * 1024  # bytes taken from a connection in its turn: a hundred or two pipelined gets, then others have theirs
DRAIN, DRAIN_BYTES = 1.0, 1024 * 1024  # seconds and bytes for which a rejected client is heard out
UNFINISHED = 10.0  # seconds that the rest of a message may take to come
STALLED = 30.0  # seconds that a client may leave its answers unread
NO_DESCRIPTORS = 0.1  # seconds to wait before accepting again when there are none left
OUR_FAULT = "a fault of brokerd's own; its log says more"
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Server:
    """Serves the socket. Slow requests run in `nursery`, each with a scope that ends with its connection."""

    def __init__(self, nursery: trio.Nursery, methods: Methods, audit: Audit, metrics: Metrics) -> None:
        self.methods = methods
        self._nursery = nursery
        self._audit = audit
        self._metrics = metrics

    async def accept(self, listener: socket.socket) -> None:
        """Accept for ever; also when descriptors run out, as soon as there are some again."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._audit.warned("cannot accept connections", reason=error.strerror)
                    await trio.sleep(NO_DESCRIPTORS)
                continue
            connection.setblocking(False)
            self._metrics.connections.inc()
            self._nursery.start_soon(self._serve, connection, name="connection")

    async def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock, self)
        try:
            await connection.serve(await attest(sock))
        except (OSError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # the client went away: his loss alone
        except Exception:
            self._audit.bug("a connection ended in a fault of brokerd's own")
        finally:
            connection.close()

    def start(self, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Run a connection's slow work beside it; the scope ends it."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        self._nursery.start_soon(run, name="request")
        return scope

    def bad_input(self, caller: Caller, error: ProtocolError) -> None:
        self._metrics.protocol_errors.inc()
        self._audit.warned("bad input on a connection", reason=str(error), pid=caller.pid, uid=caller.uid)


class Connection:
    """One client: its bytes in both directions, and its requests that are under way."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self._sock = sock
        self._server = server
        self._reader = Reader()
        self._outbox = bytearray()  # whole answers but for the first, of which a part may have left
        self._sending = trio.Lock()  # one task waits for the socket, the others for him
        self._scopes: dict[int, trio.CancelScope] = {}
        self._started = 0
        self._session: Session | None = None

    async def serve(self, caller: Caller) -> None:
        """Until the client closes, sends what is no message, or leaves something undone for too long."""
        self._session = session = Session(caller, self._notify, self._flush)
        reader, sock = self._reader, self._sock
        deadline = math.inf  # of an unfinished message; bytes that trickle in do not move it
        while True:
            if deadline == math.inf:
                await trio.lowlevel.wait_readable(sock)
            else:
                with trio.move_on_at(deadline) as scope:
                    await trio.lowlevel.wait_readable(sock)
                if scope.cancelled_caught:
                    words = f"expected the rest of a message within {UNFINISHED:g} s"
                    return await self._reject(caller, ProtocolError(words))
            try:
                data = sock.recv(READ)
            except BlockingIOError:
                continue
            if not data:
                return None
            reader.feed(data)
            try:
                for message in reader:
                    deadline = math.inf
                    self._take(session, message)
            except ProtocolError as error:
                return await self._reject(caller, error)
            if not self._send() and not await self._flush():
                return None
            if reader.partial:
                deadline = min(deadline, trio.current_time() + UNFINISHED)

    def close(self) -> None:
        if self._session is not None:
            self._server.methods.end(self._session)
            self._session = None  # they know each other: a cycle would keep their buffers until some later collection
        for scope in self._scopes.values():
            scope.cancel()
        self._sock.close()

    def _take(self, session: Session, message: list[object]) -> None:
        """Answer a request at once where that is possible; otherwise beside the connection."""
        try:
            number, method, params = read_request(message)
        except ProtocolError as error:
            if error.id is None:
                raise
            self._outbox += pack_error(error.id, Failure(Code.BAD_REQUEST, str(error)).as_map())
            return
        try:
            answer = self._server.methods.answer(session, method, params)
        except Failure as failure:
            self._outbox += pack_error(number, failure.as_map())
            return
        if not callable(answer):
            self._outbox += pack_result(number, answer)
        elif len(self._scopes) >= MAX_IN_FLIGHT:
            words = f"expected at most {MAX_IN_FLIGHT} requests in flight on a connection"
            self._outbox += pack_error(number, Failure(Code.LIMIT, words, retry_after=1.0).as_map())
        else:
            self._started += 1
            key = self._started
            self._scopes[key] = self._server.start(lambda: self._answer_later(key, number, answer))

    async def _answer_later(self, key: int, number: int, work: Callable[[], Awaitable[object]]) -> None:
        try:
            message = pack_result(number, await work())
        except Failure as failure:
            message = pack_error(number, failure.as_map())
        except Exception:
            self._server.methods.audit.bug("a request ended in a fault of brokerd's own")
            message = pack_error(number, Failure(Code.INTERNAL, OUR_FAULT).as_map())
        finally:
            del self._scopes[key]
        self._outbox += message
        await self._flush()

    def _notify(self, method: str, params: dict[str, object]) -> Awaitable[bool]:
        self._outbox += pack_notification(method, params)
        return self._flush()

    async def _flush(self) -> bool:
        """Send what is in the outbox; false, and the connection closed, if the client does not take it in time."""
        try:
            async with self._sending:
                while not self._send():
                    with trio.move_on_after(STALLED) as scope:
                        await trio.lowlevel.wait_writable(self._sock)
                    if scope.cancelled_caught:
                        self._sock.shutdown(socket.SHUT_RDWR)
                        return False
        except OSError:
            return False
        return True

    def _send(self) -> bool:
        """Send what the socket takes now; whether that was all."""
        outbox = self._outbox
        while outbox:
            try:
                del outbox[: self._sock.send(outbox)]
            except BlockingIOError:
                return False
        return True

    async def _reject(self, caller: Caller, error: ProtocolError) -> None:
        self._server.bad_input(caller, error)
        self._outbox += pack_error(None, Failure(Code.BAD_REQUEST, str(error)).as_map())
        if await self._flush():
            await self._drain()

    async def _drain(self) -> None:
        """Read what the client still sends, and forget it: closed over unread bytes, the connection would be reset, and
        the error that says why might never be read."""
        self._sock.shutdown(socket.SHUT_WR)
        left = DRAIN_BYTES
        with trio.move_on_after(DRAIN):
            while left > 0:
                await trio.lowlevel.wait_readable(self._sock)
                data = self._sock.recv(64 * 1024)
                if not data:
                    return
                left -= len(data)
