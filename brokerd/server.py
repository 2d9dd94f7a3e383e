# Connections: accepts them, learns who calls, cuts their bytes into requests, has the rules decide, and answers.
# What a method does is the methods' matter. Bad input costs its sender only (law 13).
from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

import trio
from brokerd_client.errors import ProtocolError
from brokerd_client.wire import Reader, pack_error, pack_notification, pack_result, read_request

from brokerd.audit import Audit
from brokerd.core.admission import DENIAL, RETRY_AFTER, SIZE, WARN_AGAIN, Account, Admission
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Caller
from brokerd.edge.peer import NotAttested, Peer, uid_of
from brokerd.methods import LARGE, MAX_IN_FLIGHT, Later, Methods, Session, waits
from brokerd.metrics import Metrics

READ = 4 * 1024  # bytes taken from a connection at once: a hundred or two pipelined gets,
TURN = 8  # of which so many are answered and sent in its turn; then others have theirs. So many are accepted at once
UNREAD = 16 * 1024  # bytes of answers that the kernel is asked to hold for a client; it takes twice as much
DRAIN, DRAIN_BYTES = 1.0, 1024 * 1024  # seconds and bytes for which a rejected client is heard out
UNFINISHED = 10.0  # seconds that the rest of a message may take to come
STALLED = 30.0  # seconds that a client may leave its answers unread
NO_DESCRIPTORS = 0.1  # seconds to wait for a descriptor before accepting again, unless a connection ends before
OUR_FAULT = "a fault of brokerd's own; its log says more"
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Server:
    """Serves the socket. Slow requests run in `nursery`, each with a scope that ends with its connection."""

    def __init__(
        self, nursery: trio.Nursery, methods: Methods, admission: Admission, audit: Audit, metrics: Metrics
    ) -> None:
        self.methods = methods
        self._nursery = nursery
        self._admission = admission
        self._audit = audit
        self._metrics = metrics
        self._ended = trio.lowlevel.ParkingLot()  # where accepting waits for a connection to end
        self._warned_at = -math.inf
        self._reading: WeakKeyDictionary[Account, trio.Lock] = WeakKeyDictionary()
        self._large: WeakKeyDictionary[Account, trio.Lock] = WeakKeyDictionary()

    async def accept(self, listener: socket.socket) -> None:
        """Accept for ever; also when descriptors run out, as soon as there are some again."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(TURN):
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    self._metrics.connections.inc()
                    await self._admit(connection)
            except BlockingIOError:
                pass  # that was all
            except OSError as error:
                if error.errno in EXHAUSTED:
                    await self._exhausted(error)

    async def _exhausted(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._warned_at >= WARN_AGAIN:
            self._warned_at = now
            self._audit.warned("cannot accept connections", reason=error.strerror)
        with trio.move_on_after(NO_DESCRIPTORS):
            await self._ended.park()

    async def _admit(self, sock: socket.socket) -> None:
        uid, now = uid_of(sock), trio.current_time()
        account = self._admission.account(uid, now)
        try:
            self._admission.enter(account, now)
        except Failure as failure:
            self._metrics.refusals.inc()
            if account.worth_a_word(now):
                self._audit.rejected("a connection was refused", reason=failure.message, uid=uid)
            with sock, contextlib.suppress(OSError):
                sock.send(pack_error(None, failure.as_map()))
        else:
            with contextlib.ExitStack() as undo:
                undo.callback(self._admission.leave, account)
                undo.callback(sock.close)
                peer = await self._pinned(sock)
                self._nursery.start_soon(self._serve, sock, peer, account, name="connection")
                undo.pop_all()

    async def _pinned(self, sock: socket.socket) -> Peer:
        """The process at the other end. Where no descriptor is left for it nobody else is accepted, or connections of
        unknown makers would take those that there are. Raises OSError."""
        while True:
            try:
                return Peer(sock)
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                await self._exhausted(error)

    async def _serve(self, sock: socket.socket, peer: Peer, account: Account) -> None:
        connection = Connection(sock, peer, account, self)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
            if account.delay(trio.current_time()):
                await self.turn(account)
            await peer.learn_names()
            await connection.serve()
        except (OSError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # the client went away: his loss alone
        except Exception:
            self._audit.bug("a connection ended in a fault of brokerd's own")
        finally:
            connection.close()
            self._admission.leave(account)
            self._ended.unpark_all()

    async def turn(self, account: Account) -> None:
        """Wait until his rate lets the user be heard. His connections queue, so that one of them is woken, not all."""
        async with self._reading.setdefault(account, trio.Lock()):
            await trio.sleep(account.delay(trio.current_time()))

    def large(self, account: Account) -> trio.Lock:
        """Held from the making of a large answer until it was sent: a user has one at a time in our memory."""
        return self._large.setdefault(account, trio.Lock())

    def start(self, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Run a connection's slow work beside it; the scope ends it."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        self._nursery.start_soon(run, name="request")
        return scope

    def bad_input(self, account: Account, caller: Caller, error: ProtocolError | NotAttested) -> None:
        account.charge(DENIAL, trio.current_time())
        self._metrics.protocol_errors.inc()
        self._audit.rejected("bad input on a connection", caller, reason=str(error))


class Connection:
    """One client: its bytes in both directions, and its requests that are under way."""

    def __init__(self, sock: socket.socket, peer: Peer, account: Account, server: Server) -> None:
        self._sock = sock
        self._peer = peer  # closed with it
        self._account = account
        self._server = server
        self._reader = Reader()
        self._outbox = bytearray()  # whole answers but for the first, of which a part may have left
        self._sending = trio.Lock()  # one task waits for the socket, the others for him
        self._scopes: dict[int, trio.CancelScope] = {}
        self._started = 0
        self._session: Session | None = None

    async def serve(self) -> None:
        """Until the client closes, sends what is no message, or leaves something undone for too long."""
        peer, caller = self._peer, self._peer.process.caller
        self._session = session = Session(peer.process, self._account, self._notify)
        reader, sock, account = self._reader, self._sock, self._account
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
            if account.delay(now := trio.current_time()):
                await self._server.turn(account)
                deadline += trio.current_time() - now  # the client did not cause this wait
                now = trio.current_time()
            try:
                data = peer.receive(READ)
            except BlockingIOError:
                continue
            except NotAttested as error:
                return await self._refuse(caller, error)
            if not data:
                return None
            account.charge(max(1.0, len(data) / SIZE), now)
            reader.feed(data)
            try:
                for number, message in enumerate(reader, 1):
                    deadline = math.inf
                    if number > 1:
                        account.charge(1.0, now)
                    self._take(session, message)
                    if number % TURN == 0:
                        if not self._send() and not await self._flush():
                            return None
                        if account.delay(now := trio.current_time()):
                            await self._server.turn(account)
                        else:
                            await trio.lowlevel.checkpoint()
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
        self._peer.close()

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
            if callable(answer):
                self._start(number, answer, waits(method, params), large=method in LARGE)
            else:
                self._outbox += pack_result(number, answer)
        except Failure as failure:
            self._outbox += pack_error(number, failure.as_map())

    def _start(self, number: int, work: Later, weight: int, *, large: bool) -> None:
        """Raises Failure."""
        if len(self._scopes) >= MAX_IN_FLIGHT:
            words = f"expected at most {MAX_IN_FLIGHT} requests in flight on a connection"
            raise Failure(Code.LIMIT, words, retry_after=RETRY_AFTER)
        self._account.wait(weight)
        self._started += 1
        key = self._started
        room = self._server.large(self._account) if large else contextlib.nullcontext()

        async def answer() -> None:
            try:
                async with room:
                    self._outbox += await self._answer(number, work)
                    await self._flush()
            finally:
                del self._scopes[key]
                self._account.answered(weight)

        self._scopes[key] = self._server.start(answer)

    async def _answer(self, number: int, work: Later) -> bytes:
        try:
            return pack_result(number, await work())
        except Failure as failure:
            return pack_error(number, failure.as_map())
        except Exception:
            self._server.methods.audit.bug("a request ended in a fault of brokerd's own")
            return pack_error(number, Failure(Code.INTERNAL, OUR_FAULT).as_map())

    def _notify(self, method: str, params: dict[str, object]) -> Awaitable[bool]:
        self._outbox += pack_notification(method, params)
        return self._flush()

    async def _flush(self) -> bool:
        """Send what is in the outbox, at once where the socket takes it. False, and the connection closed, if the
        client does not take it in time, or may not have it any more when it does (law 9)."""
        try:
            if not self._sending.locked() and self._send():
                return True
            async with self._sending:
                while not self._send():
                    before = self._session and self._server.methods.known(self._session)
                    with trio.move_on_after(STALLED) as scope:
                        await trio.lowlevel.wait_writable(self._sock)
                    if scope.cancelled_caught or not await self._still(before):
                        self._sock.shutdown(socket.SHUT_RDWR)
                        return False
        except OSError:
            return False
        return True

    async def _still(self, before: object) -> bool:
        """Whether the caller and the rules are what they were when an answer could not be sent at once."""
        methods, session = self._server.methods, self._session
        return session is None or (await methods.learn(session) and methods.known(session) == before)

    def _send(self) -> bool:
        """Send what the socket takes now; whether that was all. Raises OSError where the caller is gone (law 9)."""
        outbox = self._outbox
        if outbox and not self._peer.lives():
            self._sock.shutdown(socket.SHUT_RDWR)  # whoever holds its other end hears of it, and our reading ends
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        while outbox:
            try:
                del outbox[: self._sock.send(outbox)]
            except BlockingIOError:
                return False
        return True

    async def _reject(self, caller: Caller, error: ProtocolError) -> None:
        self._server.bad_input(self._account, caller, error)
        self._outbox += pack_error(None, Failure(Code.BAD_REQUEST, str(error)).as_map())
        if await self._flush():
            await self._drain()

    async def _refuse(self, caller: Caller, error: NotAttested) -> None:
        """Another process than the caller has used his connection: nothing that waits for the caller leaves on it."""
        self._server.bad_input(self._account, caller, error)
        self._outbox[:] = pack_error(None, Failure(Code.DENIED, str(error)).as_map())
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
