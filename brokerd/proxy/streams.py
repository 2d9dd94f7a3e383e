# Moves bodies between two connections, piece by piece through one buffer of a fixed size.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from brokerd.core.http.bodies import Body
from brokerd.core.http.heads import END, LONGEST, BadHead
from brokerd.edge.http.wire import Broken, Wire
from brokerd.proxy.turns import Turn

SIZE = 128 * 1024  # bytes of a buffer
SMALL, MANY = 16 * 1024, 512  # bytes of a buffer when so many are in use: thousands of clients may read nothing
SPARE = 64  # buffers that are kept for the next use
_spare: list[bytearray] = []
_lent: set[int] = set()  # by id


def is_crowded() -> bool:
    """Whether what is held for each client must be SMALL."""
    return len(_lent) >= MANY


def hold(client: object) -> None:
    """Bytes are held for a client, as in a buffer, until `release`."""
    _lent.add(id(client))


def release(client: object) -> None:
    _lent.discard(id(client))


@contextmanager
def buffer() -> Iterator[memoryview]:
    """A buffer of SIZE bytes, or SMALL. What it held before is not erased: it is never sent unread."""
    room = bytearray(SMALL) if is_crowded() else _spare.pop() if _spare else bytearray(SIZE)
    _lent.add(id(room))
    try:
        with memoryview(room) as view:
            yield view
    finally:
        _lent.discard(id(room))
        if len(room) == SIZE and len(_spare) < SPARE:
            _spare.append(room)


class ClientGone(Exception):
    """The client has closed or broken its connection, so nobody waits for the answer."""


class Incoming:
    """The bytes that come over a connection: heads, and the pieces of bodies behind them. `turn`: of the user for whom
    they come; each further piece takes one."""

    def __init__(self, wire: Wire, turn: Turn, ahead: bytes = b"") -> None:
        self.wire = wire
        self.turn = turn
        self._ahead = bytearray(ahead)  # bytes that came and were not used yet
        self.received = len(ahead)
        self._counted = 0

    def taken(self) -> int:
        """Bytes that came since this was asked last."""
        before, self._counted = self._counted, self.received
        return self.received - before

    @property
    def has_ahead(self) -> bool:
        return bool(self._ahead)

    def give_back(self, data: bytes) -> None:
        """What somebody else received, and does not use, when nothing was ahead."""
        self._ahead += data

    async def head_at_once(self, room: memoryview) -> bytes | None:
        """As `head`, when something has come already; None: the rest of the head has not."""
        if not self._ahead:
            size = await self.wire.receive_into(room)
            if not size:
                return b""
            self.received += size
            self._ahead += room[:size]
        end = self._ahead.find(END, 0, LONGEST)
        return None if end < 0 else self._cut(end)

    async def head(self, room: memoryview) -> bytes:
        """The next head, END included; b"" if the connection ends before it begins. Raises BadHead, and what its wire
        raises."""
        seen = 0
        while (end := self._ahead.find(END, max(0, seen - len(END)), LONGEST)) < 0:
            if len(self._ahead) >= LONGEST:
                raise BadHead(f"expected a head of at most {LONGEST // 1024} KiB")
            seen = len(self._ahead)
            size = await self.wire.receive_into(room[: LONGEST - seen])
            if not size:
                if self._ahead:
                    raise self.wire.broken("connection closed in the middle of a head")
                return b""
            self.received += size
            self._ahead += room[:size]
        return self._cut(end)

    def _cut(self, end: int) -> bytes:
        head = bytes(self._ahead[: end + len(END)])
        del self._ahead[: len(head)]
        return head

    async def piece(self, body: Body, room: memoryview) -> bytes | memoryview:
        """The next piece of a body that has not ended; it may be empty. Raises BadHead, and what its wire raises, also
        if the body is cut off."""
        if self._ahead:
            await trio.lowlevel.checkpoint()
            taken = bytes(self._ahead)
            found, used = body.take(memoryview(taken))
            del self._ahead[:used]
            return found
        size = await self.wire.receive_into(room)
        if not size:
            if body.truncated:
                raise self.wire.broken("connection closed in the middle of a body")
            body.ended = True
            return b""
        self.received += size
        await self.turn.take()
        found, used = body.take(room[:size])
        if used < size:
            self._ahead += room[used:size]
        return found

    def rest(self) -> bytes:
        """What came ahead, for a connection that speaks another protocol from now on."""
        taken = bytes(self._ahead)
        self._ahead.clear()
        return taken


async def tunnel(one: Incoming, other: Incoming) -> None:
    """Bytes in both directions, until one side ends its sending or breaks."""

    async def pump(source: Incoming, sink: Wire) -> None:
        with buffer() as room:
            try:
                await sink.send(source.rest())
                while size := await source.wire.receive_into(room):
                    source.received += size
                    await source.turn.take()
                    await sink.send(room[:size])
            except (Broken, ClientGone):
                pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other.wire)
        nursery.start_soon(pump, other, one.wire)
