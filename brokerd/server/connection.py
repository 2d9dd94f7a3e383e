# One client's connection, whatever protocol it speaks (rpc.py, http/, credentials.py): who sends, what it is charged,
# and how answers leave. A client that sends bad input, or does not read its answers, harms nobody but itself (law 13).
from __future__ import annotations

import errno
import math
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import trio
from brokerd_client.errors import ProtocolError

from brokerd.core.access.admission import ANSWERED, SIZE, Account
from brokerd.core.access.policy import Caller
from brokerd.core.errors import Code, Failure
from brokerd.edge.peer.peer import NotAttested, Peer
from brokerd.server.session import CallerSession

if TYPE_CHECKING:
    from brokerd.server.server import Server

READ = 4 * 1024  # bytes read from a connection at once: a hundred or two pipelined gets
TURN = 8  # requests that are answered before other connections have their turn
DRAIN, DRAIN_BYTES = 1.0, 1024 * 1024  # seconds and bytes for which brokerd still reads from a rejected client
UNFINISHED = 10.0  # seconds that the rest of a message may take to arrive
STALLED = 30.0  # seconds that a client may leave its answers unread
LARGE = 64 * 1024  # bytes of answers; with more, no further request is answered before they are sent
OWN_FAULT = "brokerd failed by a fault of its own; its log has the details: journalctl -u brokerd"


class RequestReader(Protocol):
    """Cuts bytes into requests of one protocol. Iterating brings those that are whole, and may raise ProtocolError."""

    @property
    def partial(self) -> bool:
        """Whether the beginning of a request is there and its rest is not."""
        ...

    def feed(self, data: bytes) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(ABC):
    """One client, and the bytes that leave for it. It closes `peer` with itself."""

    def __init__(self, sock: socket.socket, peer: Peer, account: Account, server: Server) -> None:
        self._sock = sock
        self._peer = peer
        self._account = account
        self._server = server
        self._outbox = bytearray()  # whole answers, except that a part of the first may have been sent
        self._sending = trio.Lock()  # one task waits until the socket takes more; the others wait for that task
        self._session: CallerSession | None = None
        self._unread = 0  # bytes of the outbox that the account counts
        self._rights_then: object = None  # the caller's, when the socket did not take what is in the outbox

    @staticmethod
    @abstractmethod
    def refusal(failure: Failure) -> bytes:
        """The answer to a client that is turned away; the connection ends with it."""

    def begin_at_once(self) -> bool:
        """Serve without a task, as far as nothing has to be waited for. False: it needs one, which calls `serve`."""
        return False

    @abstractmethod
    async def serve(self) -> None:
        """Until the client has gone or must go."""

    def close(self) -> None:
        try:
            self._end_work()
        finally:
            self._session = None  # it refers back to us: without this, only a later garbage collection frees both
            self._sock.close()
            self._peer.close()
            self._drop()
            self._count()

    def _end_work(self) -> None:
        """End the requests that are under way, and pushes."""
        if self._session is not None:
            self._server.dispatcher.end(self._session)

    async def _flush(self) -> bool:
        """Send what is in the outbox, at once if the socket takes it. Returns False and closes the connection if the
        client does not read in time, if its user leaves too much unread (law 13), or if its rights have changed before
        it read (law 9)."""
        try:
            if self._rights_then is not None and not await self._has_same_rights(self._rights_then):
                self._sock.shutdown(socket.SHUT_RDWR)  # the answer was made a turn ago, and was left in the outbox
                return False
            if not self._sending.locked() and self._send():
                return True
            if not self._count():
                self._sock.shutdown(socket.SHUT_RDWR)
                return False
            async with self._sending:
                while not self._send():
                    with trio.move_on_after(STALLED) as scope:
                        await trio.lowlevel.wait_writable(self._sock)
                    if scope.cancelled_caught or not await self._has_same_rights(self._rights_then):
                        self._sock.shutdown(socket.SHUT_RDWR)
                        return False
        except OSError:
            return False
        return True

    async def _has_same_rights(self, before: object) -> bool:
        """Whether caller and rules are the same as when an answer could not be sent at once."""
        dispatcher, session = self._server.dispatcher, self._session
        return session is None or (await dispatcher.look_again(session) and dispatcher.rights_of(session) == before)

    def _send(self) -> bool:
        """Send what the socket takes now. Returns whether that was all. Raises OSError if the caller has ended
        (law 9)."""
        outbox = self._outbox
        if outbox and not self._peer.lives():
            self._sock.shutdown(socket.SHUT_RDWR)  # another holder of the other end notices it, and our reading ends
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        while outbox:
            try:
                sent = self._send_some()
                del outbox[:sent]
                if sent > ANSWERED:
                    self._account.charge(sent / ANSWERED, trio.current_time())
            except BlockingIOError:
                if self._rights_then is None and self._session is not None:
                    self._rights_then = self._server.dispatcher.rights_of(self._session)
                return False
        self._rights_then = None
        if self._unread:
            self._count()
        return True

    def _send_alone(self, answer: bytes) -> bool:
        """As `_send`, for one answer while the outbox is empty. What the socket does not take is then in the outbox."""
        if self._peer.lives():
            try:
                if (sent := self._sock.send(answer)) == len(answer):
                    return True
                answer = answer[sent:]
            except BlockingIOError:
                pass
        self._outbox += answer
        return self._send()

    def _send_some(self) -> int:
        """How many bytes of the outbox the socket took. Raises OSError."""
        return self._sock.send(self._outbox)

    def _count(self) -> bool:
        """Count what waits to be read. False: it is more than a user may leave unread, and was dropped."""
        account, there = self._account, 0 if self._sock.fileno() < 0 else len(self._outbox)
        if fits := account.unread - self._unread + there <= account.most_unread:
            account.unread += there - self._unread
            self._unread = there
        else:
            self._drop()
        return fits

    def _drop(self) -> None:
        """What was made and is not sent has cost as much."""
        if len(self._outbox) > ANSWERED:
            self._account.charge(len(self._outbox) / ANSWERED, trio.current_time())
        self._outbox.clear()
        self._rights_then = None


class ClientConnection(Connection):
    """A client that sends requests, some of which are under way."""

    def __init__(self, sock: socket.socket, peer: Peer, account: Account, server: Server) -> None:
        super().__init__(sock, peer, account, server)
        self._reader = self._new_reader()
        self._scopes: dict[int, trio.CancelScope] = {}
        self._deadline = math.inf  # of an unfinished request; bytes that trickle in do not move it
        self._arrived: bytes | None = None  # what was read, and charged, and not looked at yet
        self._unfinished = False  # requests are in `_reader` that were not looked at
        self._error: Exception | None = None  # why the connection cannot go on; the task that is begun says so
        self._last = False  # nothing follows the answer that is in the outbox

    @staticmethod
    @abstractmethod
    def _new_reader() -> RequestReader: ...

    @abstractmethod
    def _take(self, session: CallerSession, request: Any) -> None:
        """Answer a request at once if that is possible, otherwise in a task of its own. Raises ProtocolError."""

    @abstractmethod
    def _notify(self, method: str, params: dict[str, object]) -> Awaitable[bool]:
        """Push an event of a watched grant. False: the connection is gone."""

    def _feed(self, data: bytes) -> None:
        self._reader.feed(data)

    async def _finish(self) -> bool:
        """The client sends nothing more. Returns whether the connection goes on."""
        if self._outbox:
            await self._flush()  # the rest of an answer that the client still reads
        return False

    def _rejection(self, failure: Failure) -> bytes:
        return self.refusal(failure)

    async def serve(self) -> None:
        """Until the client closes, sends something that is no message, or leaves something undone for too long. No
        other task reads from the client, cuts its bytes into requests, or rejects it."""
        caller = self._peer.process.caller
        session = self._open()
        try:
            if self._error is not None:
                raise self._error
            goes_on = await self._receive(session)  # most clients have sent something already
            while goes_on and await self._next(session):
                pass
        except NotAttested as error:
            self._drop()  # no answer that waits for the caller is sent to another process
            await self._reject(caller, error, Code.DENIED)
        except ProtocolError as error:
            await self._reject(caller, error)

    def _open(self) -> CallerSession:
        if self._session is None:
            self._session = CallerSession(self._peer.process, self._account, self._notify)
        return self._session

    async def _next(self, session: CallerSession) -> bool:
        """Wait until the client sends something, and answer. False: the connection has ended. Raises ProtocolError and
        NotAttested."""
        waiting, descriptor = self._server.waiting, self._sock.fileno()
        if self._deadline == math.inf:
            await waiting.wait(descriptor, self)
        else:
            with trio.move_on_at(self._deadline) as scope:
                await waiting.wait(descriptor, self)
            if scope.cancelled_caught:
                raise ProtocolError(f"expected the rest of a message within {UNFINISHED:g} s")
        return await self._receive(session)

    @property
    def _reads_at_once(self) -> bool:
        """Whether what comes now may be read before a task has its turn."""
        return False

    def read_at_once(self) -> bool:
        """See waiting_clients.py. Raises NotAttested and OSError."""
        if self._reads_at_once and not self._account.delay(now := trio.current_time()):
            try:
                self._arrived = self._read(now)
            except BlockingIOError:
                return False
        return True

    def answer_at_once(self, _batch: object) -> bool:
        return False

    def go_on(self, error: Exception | None) -> None:
        self._error = error
        self._server.begin(self, self._peer, self._account)

    async def _receive(self, session: CallerSession) -> bool:
        """What `_next` does with what has come."""
        account = self._account
        if account.delay(now := trio.current_time()):
            await self._server.turn(account)
            self._deadline += trio.current_time() - now  # the client did not cause this wait
            now = trio.current_time()
        if self._unfinished:
            self._unfinished = False
            return await self._answer_all(session, counted=0)
        data, self._arrived = self._arrived, None
        if data is None:
            try:
                data = self._read(now)
            except BlockingIOError:
                return not self._outbox or await self._flush()
        if not data:
            return await self._finish()
        self._feed(data)
        return await self._answer_all(session, counted=1)

    def _read(self, now: float) -> bytes:
        """What the client has sent; its user is charged for that. Raises BlockingIOError, NotAttested and OSError."""
        if data := self._peer.receive(READ):
            self._account.charge(max(1.0, len(data) / SIZE), now)
        return data

    async def _answer_all(self, session: CallerSession, counted: int) -> bool:
        """Answer the requests that are whole; `counted` of them are charged already. False: the connection has ended.
        Raises ProtocolError."""
        account = self._account
        for number, request in enumerate(self._reader, 1):
            self._deadline = math.inf
            if number > counted:
                account.charge(1.0, trio.current_time())
            self._take(session, request)
            if number % TURN == 0 or len(self._outbox) > LARGE:
                if not self._send() and not await self._flush():
                    return False
                if account.delay(trio.current_time()):
                    await self._server.turn(account)
                else:
                    await trio.lowlevel.checkpoint()
        if self._reader.partial:
            self._deadline = min(self._deadline, trio.current_time() + UNFINISHED)
        return (self._send() or await self._flush()) and not self._last

    def close(self) -> None:
        self._server.waiting.forget(self._sock.fileno())
        super().close()

    def _end_work(self) -> None:
        super()._end_work()
        for scope in self._scopes.values():
            scope.cancel()

    async def _reject(self, caller: Caller, error: ProtocolError | NotAttested, code: Code = Code.BAD_REQUEST) -> None:
        """The last answer of the connection. What was under way ends, so that nothing follows it."""
        self._end_work()
        self._server.bad_input(self._account, caller, error)
        self._outbox += self._rejection(Failure(code, str(error)))
        if await self._flush():
            await self._drain()

    async def _drain(self) -> None:
        """Read and drop what the client still sends. If brokerd closed the socket with unread bytes in it, the kernel
        would reset the connection, and the client might never read the error that says why."""
        self._sock.shutdown(socket.SHUT_WR)
        left = DRAIN_BYTES
        with trio.move_on_after(DRAIN):
            while left > 0:
                await trio.lowlevel.wait_readable(self._sock)
                data = self._sock.recv(64 * 1024)
                if not data:
                    return
                left -= len(data)
