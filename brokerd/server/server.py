# Accepts connections at the socket: who connects, whether that user may have one more connection, and how users share
# brokerd's time. Bad input costs its sender only (law 13).
from __future__ import annotations

import contextlib
import errno
import functools
import math
import socket
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

import trio
from brokerd_client.errors import ProtocolError

from brokerd.core.access.admission import DENIAL, WARN_AGAIN, Account, Admission
from brokerd.core.access.credential import NotSystemd
from brokerd.core.access.policy import Caller
from brokerd.core.errors import Failure
from brokerd.core.events import Event
from brokerd.edge.peer.peer import NotAttested, Peer, uid_of
from brokerd.server.connection import Connection
from brokerd.server.listen_queue import ListenQueue
from brokerd.server.methods.dispatcher import Dispatcher
from brokerd.server.rpc import RpcConnection
from brokerd.server.short_way import RepeatedGets
from brokerd.server.waiting_clients import WaitingClients
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

BATCH = 4  # connections that are refused; one that is admitted ends it, because it takes as long as four refusals
TURN = 2  # batches that are accepted before other tasks have their turn
UNREAD = 16 * 1024  # bytes of answers that the kernel is asked to keep for a client; it takes twice as much
NO_DESCRIPTORS = 0.1  # seconds to wait for a descriptor before accepting again, unless a connection ends before
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Server:
    """Serves the socket. Slow requests run in `nursery`, each with a scope that ends with its connection."""

    def __init__(
        self,
        nursery: trio.Nursery,
        dispatcher: Dispatcher,
        admission: Admission,
        events: EventLog,
        metrics: Metrics,
        short_way: RepeatedGets | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.short_way = short_way
        self.waiting = WaitingClients()
        nursery.start_soon(self.waiting.run)
        self._nursery = nursery
        self._admission = admission
        self._events = events
        self._metrics = metrics
        self._ended = trio.lowlevel.ParkingLot()  # accepting waits here until a connection ends
        self._warned_at = -math.inf
        self._reading: WeakKeyDictionary[Account, trio.Lock] = WeakKeyDictionary()
        self._large: WeakKeyDictionary[Account, trio.Lock] = WeakKeyDictionary()

    async def accept(self, listener: socket.socket, kind: type[Connection] = RpcConnection) -> None:
        """Accept for ever. When descriptors run out, go on as soon as there are some again. `kind`: its protocol."""
        queue = ListenQueue(listener)
        try:
            while True:
                try:
                    await self._accept_turn(queue, kind)
                    await trio.lowlevel.checkpoint()
                except BlockingIOError:
                    queue.lengthen()
                    await trio.lowlevel.wait_readable(listener)
                except OSError as error:
                    if error.errno in EXHAUSTED:
                        await self._wait_for_descriptor(error)
                    else:
                        await trio.lowlevel.wait_readable(listener)
        finally:
            queue.lengthen()  # systemd keeps it for the next brokerd

    async def _accept_turn(self, queue: ListenQueue, kind: type[Connection]) -> None:
        """Accept until other tasks have their turn. Raises BlockingIOError if nobody waits, and OSError."""
        refused = 0
        for _ in range(TURN):
            refused += await self._accept_batch(queue, kind)
            self.waiting.answer_now()  # who is connected does not wait for new connections
        if refused >= BATCH:  # half of what a turn can refuse: somebody floods the socket
            queue.shorten()

    async def _accept_batch(self, queue: ListenQueue, kind: type[Connection]) -> int:
        """Returns how many connections of the batch were refused."""
        for refused in range(BATCH):
            sock = queue.accept()
            self._metrics.connections.inc()
            if await self._admit(sock, kind):
                return refused
        return BATCH

    async def _wait_for_descriptor(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._warned_at >= WARN_AGAIN:
            self._warned_at = now
            self._events.say(Event.CONNECTIONS_NOT_ACCEPTED, reason=error.strerror)
        with trio.move_on_after(NO_DESCRIPTORS):
            await self._ended.park()

    async def _admit(self, sock: socket.socket, kind: type[Connection]) -> bool:
        """False: it was refused."""
        uid, now = uid_of(sock), trio.current_time()
        account = self._admission.account(uid, now)
        if (failure := self._admission.enter(account, now)) is not None:
            self._metrics.refusals.inc()
            if account.is_worth_logging(now):
                self._events.rejected(Event.CONNECTION_REFUSED, reason=failure.message, uid=uid)
            with sock, contextlib.suppress(OSError):
                sock.send(_refusal(kind, failure), socket.MSG_DONTWAIT)
            return False
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
            peer = await self._pin_peer(sock)
            connection = kind(sock, peer, account, self)  # which owns both from now on
            if not connection.begin_at_once():
                self.begin(connection, peer, account)
        except BaseException:
            sock.close()
            self._admission.leave(account)
            raise
        return True

    async def _pin_peer(self, sock: socket.socket) -> Peer:
        """The process at the other end. While no descriptor is left to pin it, nobody else is accepted: otherwise new
        connections of unknown processes would take the descriptors that become free. Raises OSError."""
        while True:
            try:
                return Peer(sock)
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                await self._wait_for_descriptor(error)

    def begin(self, connection: Connection, peer: Peer, account: Account) -> None:
        """The connection needs a task from now on."""
        self._nursery.start_soon(self._serve, connection, peer, account, name="connection")

    async def _serve(self, connection: Connection, peer: Peer, account: Account) -> None:
        try:
            if account.delay(trio.current_time()):
                await self.turn(account)
            await peer.learn_names()
            await connection.serve()
        except (OSError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # the client went away, which harms nobody else
        except Exception:
            self._events.bug("connection")
        finally:
            self.end(connection, account)

    def end(self, connection: Connection, account: Account) -> None:
        try:
            connection.close()
        except Exception:  # of ours: it ends nothing else
            self._events.bug("end of a connection")
        self._admission.leave(account)
        self._ended.unpark_all()

    async def turn(self, account: Account) -> None:
        """Wait until the user's rate allows the next request. The user's connections queue here, so that one of them is
        woken and not all."""
        async with self._reading.setdefault(account, trio.Lock()):
            await trio.sleep(account.delay(trio.current_time()))

    def large(self, account: Account) -> trio.Lock:
        """Held from the making of a large answer until it was sent: each user has at most one in brokerd's memory."""
        return self._large.setdefault(account, trio.Lock())

    def start(self, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Run slow work of a connection in a task of its own. The scope ends it. A fault of ours in it ends nothing
        else."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    await work()
                except Exception:
                    self._events.bug("request")

        self._nursery.start_soon(run, name="request")
        return scope

    def bad_input(self, account: Account, caller: Caller, error: ProtocolError | NotAttested | NotSystemd) -> None:
        account.charge(DENIAL, trio.current_time())
        self._metrics.protocol_errors.inc()
        self._events.rejected(Event.BAD_INPUT, caller, reason=str(error))


@functools.lru_cache(maxsize=16)
def _refusal(kind: type[Connection], failure: Failure) -> bytes:
    return kind.refusal(failure)
