# One client's connection to a proxy: whose it is, the requests that it sends one after the other, and how it ends.
from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import trio

from brokerd.core.access.policy import Caller
from brokerd.core.http.forwarding import NotForwarded
from brokerd.core.http.heads import BadHead, RequestHead, read_request
from brokerd.edge.http.wire import Wire
from brokerd.edge.peer.peer import NotAttested, Peer, names_of
from brokerd.proxy import answers
from brokerd.proxy.running import RequestExchange, Running
from brokerd.proxy.short_way import Handed, ShortWay, ShortWays
from brokerd.proxy.streams import ClientGone, Incoming, buffer
from brokerd.proxy.turns import Turn
from brokerd.proxy.usage import CUT, LONGEST, Used, Who

HEAD_PIECE = 4_096  # bytes of a head that are read at once
HEAD_WITHIN = 30.0  # seconds for a head, once its first byte has come
IDLE = 600.0  # seconds between two requests
FOR_AUDIT = frozenset({"unit", "exe"})  # what is looked at once, to say whose requests these were
STALLED = 300.0  # seconds without any byte from a client that sends a body, or to one that is sent an answer


class AttestedWire(Wire):
    """A Unix socket: each message must come from the process that connected (law 9)."""

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        super().__init__(sock, ClientGone, STALLED)
        self._peer = peer

    def receive_at_once(self, room: memoryview) -> int:
        try:
            return self._peer.receive_into(room)
        except BlockingIOError:
            return -1
        except NotAttested as error:
            raise ClientGone(str(error)) from None
        except OSError:
            raise ClientGone("connection closed") from None


async def refuse(sock: socket.socket, status: int, code: str, words: str) -> None:
    """Say why there is no service here. Raises ClientGone."""
    wire = Wire(sock, ClientGone, STALLED)
    await wire.send(answers.error(status, code, words))
    await wire.finish()


class ProxyClient:
    """`proxy` may be replaced by a reload between two requests. `is_idle`: it waits for a request, and no byte of one
    has been read; after `serve` it means that the connection can go on elsewhere."""

    def __init__(self, sock: socket.socket, proxy: Running[Any], uid: int, ways: ShortWays, turn: Turn) -> None:
        self.proxy: Running[Any] = proxy
        self.sock = sock
        self.uid = uid
        self.is_idle = False
        self.is_stranger = False  # the proxy's `caller` does not describe it
        self._turn = turn
        self._peer: Peer | None = None
        self._caller = Caller(0, -1, frozenset())
        self._admitted: tuple[Running[Any], Caller] | None = None
        self._last: tuple[bytes, RequestHead] | None = None
        self._idling = trio.CancelScope()
        self._ways = ways

    async def attest(self) -> None:
        """Who the client is. Raises OSError."""
        await self._turn.take()
        if self.sock.family == socket.AF_UNIX:
            self._peer = Peer(self.sock)
            await self._peer.learn_names()
            self._caller = await self._peer.process.look(FOR_AUDIT)
            return
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        user, _ = await names_of(self.uid, frozenset())
        self._caller = Caller(0, self.uid, frozenset(), user)

    async def serve(self) -> None:
        """After `attest`, until the client has gone or must go. Raises ClientGone, Broken."""
        wire = Wire(self.sock, ClientGone, STALLED) if self._peer is None else AttestedWire(self.sock, self._peer)
        incoming, keep = Incoming(wire, self._turn), True
        with memoryview(bytearray(HEAD_PIECE)) as small, closing(ShortWay(self._ways, self, incoming)) as short:
            while keep and await self._begins(incoming, short):
                if (handed := short.take_over()) is not None:
                    keep = await self._answer(incoming, handed.request.head, handed)
                    continue
                await self._turn.take()
                try:
                    if (data := await incoming.head_at_once(small)) is None:
                        with trio.move_on_after(HEAD_WITHIN):
                            data = await incoming.head(small)
                    if data is None:
                        raise BadHead(f"expected the whole head of a request within {HEAD_WITHIN:g} s")
                    if not data:
                        return
                    head = self._read(data)
                except BadHead as error:
                    await refuse(self.sock, 400, "bad_request", str(error))
                    return
                keep = await self._answer(incoming, head)
                if incoming.has_ahead:  # others have their turn before the request that came with this one
                    await trio.lowlevel.checkpoint()

    def end_if_idle(self) -> None:
        """End `serve`, unless the client has begun a request."""
        self._idling.cancel()

    def close(self) -> None:
        self.sock.close()
        if self._peer is not None:
            self._peer.close()

    async def _begins(self, incoming: Incoming, short: ShortWay) -> bool:
        """Wait for the first byte of a request that goes the long way, or for one that is handed over to it."""
        while not incoming.has_ahead:
            self.is_idle, before = True, incoming.received
            if not self.proxy.runs:
                return False
            self._idling = trio.CancelScope(deadline=trio.current_time() + IDLE)
            with self._idling:
                await short.wait()
            if short.has_rest:
                await short.send_rest()
            elif short.is_under_way or not self._idling.cancelled_caught:
                break
            elif incoming.received == before:
                return False
        self.is_idle = False
        return True

    def _read(self, data: bytes) -> RequestHead:
        """A client often sends the same head again."""
        if self._last is not None and self._last[0] == data:
            return self._last[1]
        head = read_request(data)
        self._last = None if head.is_private else (data, head)
        return head

    async def _admit(self) -> None:
        """Whether the proxy's `caller` describes the client as it is now (law 9). Raises NotForwarded."""
        proxy, caller = self.proxy, self._caller
        if self._peer is not None:
            try:
                caller = self._peer.process.glance(proxy.needs) or await self._peer.process.look(proxy.needs)
            except OSError:
                raise ClientGone("the process that connected has ended") from None
        if not self._matches(caller):
            self.is_stranger = True
            who = caller.user or caller.uid
            words = f"user {who} may not use this proxy, or not by this program; see [{proxy.table}] caller"
            raise NotForwarded(403, "denied", words)

    def is_admitted(self) -> bool:
        """As `_admit`, if that needs no waiting. False: it does, or the client is a stranger. Raises ClientGone."""
        caller: Caller | None = self._caller
        if self._peer is not None:
            try:
                caller = self._peer.process.glance(self.proxy.needs)
            except OSError:
                raise ClientGone("the process that connected has ended") from None
        return caller is not None and self._matches(caller)

    def _matches(self, caller: Caller) -> bool:
        """Whether the proxy's `caller` describes this one: looked at again when either has changed."""
        known = self._admitted
        if known is None or known[0] is not self.proxy or (known[1] is not caller and known[1] != caller):
            if not self.proxy.admits(caller):
                return False
            self._admitted = self.proxy, caller
        return True

    async def _answer(self, incoming: Incoming, head: RequestHead, handed: Handed | None = None) -> bool:
        """Returns whether the connection can be used for another request. `handed`: it came the short way so far."""
        wire, path, status = incoming.wire, b"", 0
        sent = wire.sent
        exchange: RequestExchange | None = None
        try:
            if handed is not None:
                path = handed.request.path
                exchange = resumed = handed.proxy.exchange(incoming, head, self._caller)
                with buffer() as room:
                    await resumed.resume(handed.sent, room)
            else:
                await self._admit()
                path = self.proxy.check(head)
                exchange = self.proxy.exchange(incoming, head, self._caller)
                with buffer() as room:
                    await exchange.run(room)
            if not exchange.done.keep:
                await wire.finish()
            return exchange.done.keep
        except (NotForwarded, BadHead) as error:
            if exchange is not None and exchange.done.status:
                return False  # in the middle of an answer
            status, code = (error.status, error.code) if isinstance(error, NotForwarded) else (400, "bad_request")
            await wire.send(answers.error(status, code, str(error), method=head.method))
            await wire.finish()
            return False
        finally:
            status = status or (exchange.done.status if exchange else 0)
            use = self.use(head, path, status)
            self.proxy.usage.note(use, incoming.taken(), wire.sent - sent)

    def use(self, head: RequestHead, path: bytes, status: int) -> Used:
        settings = self.proxy.settings
        # What a stranger asked for is one kind of request: it must not push out what others did.
        method = CUT if self.is_stranger else head.method.decode("ascii")[:LONGEST]
        said = path.decode("ascii")[:LONGEST]
        return Used(settings.name, settings.source, Who.of(self._caller), method, said, status)
