# The short way of a request that comes whole, with its body, over a connection to the upstream that is kept: it is
# forwarded and answered without a task that waits. What is not so simple is handed over to the client's task, at any
# point, and goes the long way (clients.py, exchange.py).
from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import trio
from brokerd_client import Token

from brokerd.core.http import bodies
from brokerd.core.http.bodies import LAST_CHUNK, chunk
from brokerd.core.http.forwarding import response_lines
from brokerd.core.http.heads import END, LONGEST, BadHead, RequestHead, read_response
from brokerd.edge.http.wire import Broken, Wire
from brokerd.edge.system.arrivals import Arrivals
from brokerd.proxy.exchange import LOOK_AFTER, SentRequest, can_stay, length_line
from brokerd.proxy.running import Running, RunningProxy
from brokerd.proxy.short_requests import ShortRequest
from brokerd.proxy.streams import SIZE, Incoming, hold, is_crowded, release
from brokerd.proxy.usage import Count, Used

LARGEST = 16 * 1024  # bytes of a request, as it came and as it is sent: what the kernel takes without waiting
UNAUTHORIZED = 401
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NO_COUNT = Count(is_taken=True)


class ShortWays:
    """What the short ways of all clients share. `run` must run."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.room = bytearray(SIZE)
        self.view = memoryview(self.room)
        self.small = self.view[:LARGEST]
        self._under_way = dict[ShortWay, float]()  # since when
        self._begun = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.arrivals.run)
            nursery.start_soon(self._watch)

    def begin(self, way: ShortWay, wire: Wire, answered: Callable[[bool], None]) -> None:
        """The upstream at `wire` has been sent a request of that client."""
        self.arrivals.calls[wire.sock.fileno()] = answered
        if not wire.is_watched:
            wire.is_watched = True
            self.arrivals.add(wire.sock)
        self._under_way[way] = trio.current_time()
        if not self._begun.is_set():
            self._begun.set()

    def end(self, way: ShortWay, wire: Wire) -> float:
        """Since when the request was under way."""
        del self.arrivals.calls[wire.sock.fileno()]
        return self._under_way.pop(way)

    async def _watch(self) -> None:
        """A task must wait for an upstream that does not answer soon: the client may go, or the time may be over."""
        while True:
            if not self._under_way:
                self._begun = trio.Event()
                await self._begun.wait()
            await trio.sleep(LOOK_AFTER / 2)
            latest = trio.current_time() - LOOK_AFTER / 2
            for way in [way for way, since in self._under_way.items() if since <= latest]:
                way.wake()


class ShortClient(Protocol):
    """What the short way needs to know of a client. `is_idle`: no byte of a request has been read."""

    proxy: Running[Any]
    is_idle: bool

    def is_admitted(self) -> bool:
        """Whether the proxy's `caller` describes the client as it is now (law 9). False: that needs a longer look.
        Raises ClientGone."""
        ...

    def use(self, head: RequestHead, path: bytes, status: int) -> Used: ...


class UnderWay(NamedTuple):
    """A request that was sent to the upstream. `body`: of it."""

    proxy: RunningProxy
    request: ShortRequest
    body: bytes
    token: Token
    wire: Wire


@dataclass(frozen=True, slots=True)
class Handed:
    """A request that goes on the long way."""

    proxy: RunningProxy
    request: ShortRequest
    sent: SentRequest


class ShortWay:
    """The short way of one client. Its task awaits `wait` between two requests."""

    def __init__(self, ways: ShortWays, client: ShortClient, incoming: Incoming) -> None:
        self._ways = ways
        self._client = client
        self._incoming = incoming
        self._task: trio.lowlevel.Task | None = None  # it waits
        self._fault: Exception | None = None  # for it
        self._more = True  # the client may have sent something that nobody has looked at
        self._ends = False  # it has ended its sending; that is seen behind the last bytes
        self._awaits_turn = False
        self._under_way: UnderWay | None = None
        self._data = b""  # what came of its answer
        self._rest = b""  # of an answer that the client must be sent
        self._counting: tuple[ShortRequest | None, int, Count] = (None, 0, NO_COUNT)  # what was counted last, and where
        ways.arrivals.calls[incoming.wire.sock.fileno()] = self._arrived
        ways.arrivals.add(incoming.wire.sock)

    @property
    def is_under_way(self) -> bool:
        return self._under_way is not None

    @property
    def has_rest(self) -> bool:
        return bool(self._rest)

    async def wait(self) -> None:
        """Until the client has sent something that needs a task, or has ended its sending; what was read is ahead in
        `incoming`. Or until a request needs one that is under way, or an answer: see `take_over` and `send_rest`.
        Raises ClientGone."""
        if self._more:
            self._more = self._ends
            if self._take_in_turn():
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._fault is not None:
            raise self._fault

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """The task goes on."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def send_rest(self) -> None:
        """Of an answer that the client did not take at once. Raises ClientGone."""
        rest, self._rest = self._rest, b""
        try:
            await self._incoming.wire.send(rest)
        finally:
            release(self)

    def take_over(self) -> Handed | None:
        """The request that is under way: it is the task's from now on."""
        if (found := self._under_way) is None:
            return None
        proxy, request, body, token, wire = found
        sent, self._data = SentRequest(wire, token, body, self._end(wire), self._data), b""
        return Handed(proxy, request, sent)

    def close(self) -> None:
        """The client's socket is about to be closed."""
        if (left := self.take_over()) is not None:
            left.sent.wire.close()
        release(self)
        del self._ways.arrivals.calls[self._incoming.wire.sock.fileno()]

    # -- to the upstream. Each step says whether the task must go on; nothing here waits.

    def _arrived(self, ends: bool) -> None:
        is_free = self._task is not None and self._under_way is None
        self._ends = self._ends or ends
        self._more = self._more or ends or not is_free
        if is_free:
            self._attempt(self._take_in_turn)

    def _take_in_turn(self) -> bool:
        """As `_take`, now or when the user has its turn."""
        turn = self._incoming.turn
        if not self._awaits_turn and turn.now():
            return self._take()
        if not self._awaits_turn:
            self._awaits_turn = True
            turn.later(self, self._turn_has_come)
        return False

    def _turn_has_come(self) -> None:
        self._awaits_turn = False
        if self._task is None or self._under_way is not None:
            self._more = True
        else:
            self._attempt(self._take)

    def _attempt(self, step: Callable[[], bool]) -> None:
        try:
            if step():
                self.wake()
        except Exception as error:  # the task raises it
            self._fault = error
            self.wake()

    def _take(self) -> bool:
        """What the client has sent."""
        incoming = self._incoming
        size = incoming.wire.receive_at_once(self._ways.small)
        if size <= 0:
            return size == 0
        data = bytes(self._ways.small[:size])
        self._more = self._more or size == LARGEST
        self._client.is_idle = False
        incoming.received += size
        if self._send(data):
            return False
        incoming.give_back(data)
        return True

    def _send(self, data: bytes) -> bool:
        """Returns whether the request is under way."""
        proxy = self._client.proxy
        if not isinstance(proxy, RunningProxy) or proxy.requests is None or not self._client.is_admitted():
            return False
        if (header := proxy.tokens.header(proxy.settings.source)) is None:
            return False
        token, name, line = header
        if (request := proxy.requests.find(data, name)) is None:
            return False
        body = data[len(data) - request.length :]
        message = b"".join((request.before, line, request.after, body))
        if len(message) > LARGEST or (wire := proxy.upstreams.take_kept()) is None:
            return False
        try:
            whole = wire.send_at_once(message) == len(message)
        except Broken:
            whole = False
        if not whole:  # the upstream has not got a request
            wire.close()
            return False
        self._ways.begin(self, wire, self._answered)
        self._under_way = UnderWay(proxy, request, body, token, wire)
        return True

    # -- back to the client

    def _answered(self, _ends: bool) -> None:
        if self._task is not None:
            self._attempt(self._give)

    def _give(self) -> bool:
        """What the upstream has sent: a whole answer goes back at once."""
        assert self._under_way is not None
        wire, size = self._under_way.wire, 0
        view = self._ways.small if is_crowded() else self._ways.view
        with contextlib.suppress(Broken):  # the task sees the same
            size = wire.receive_at_once(view)
        if size < 0:
            return False
        if size and (found := self._message(size)) is None and (more := wire.receive_more(view[size:])):
            size += more
            found = self._message(size)  # not for each record of TLS: they may be many, and the head long
        if size and found is not None:
            return self._answer(*found)
        self._data = bytes(view[:size])
        return True

    def _message(self, size: int) -> tuple[int, bytes, bool] | None:
        """Status, bytes for the client, and whether the connection can be used again. None: it is not the whole answer,
        or not a simple one."""
        assert self._under_way is not None
        proxy, request = self._under_way[:2]
        end = self._ways.room.find(END, 0, min(size, LONGEST)) + len(END)
        if end < len(END):
            return None
        try:
            answer = read_response(bytes(self._ways.view[:end]))
            if answer.status < 200 or answer.status == UNAUTHORIZED:
                return None
            body = bodies.of_response(answer, request.head.method)
            piece, used = body.take(self._ways.view[end:size])
        except BadHead:
            return None
        if not body.ended or end + used < size:
            return None
        lines = response_lines(answer, proxy.settings.upstream)
        if answer.framing.chunked and not answer.ends_at_head(request.head.method):
            framing, piece = CHUNKED, b"".join((chunk(piece) if piece else b"", LAST_CHUNK))
        else:
            framing = length_line(answer)
        return answer.status, b"".join((lines, framing, b"\r\n", piece)), can_stay(answer, body)

    def _answer(self, status: int, data: bytes, stays: bool) -> bool:
        assert self._under_way is not None
        proxy, request, _, _, wire = self._under_way
        self._end(wire)
        if stays:
            proxy.upstreams.keep(wire)
        else:
            wire.close()
        counted, as_status, count = self._counting
        if counted is not request or as_status != status or count.is_taken:
            count = proxy.usage.count_of(self._client.use(request.head, request.path, status))
            self._counting = request, status, count
        count.note(self._incoming.taken(), len(data))
        if (sent := self._incoming.wire.send_at_once(data)) < len(data):
            self._rest = data[sent:]
            hold(self)
            return True
        self._client.is_idle = True
        if self._more:
            self._more = self._ends
            return self._take_in_turn()
        return False

    def _end(self, wire: Wire) -> float:
        self._under_way = None
        return self._ways.end(self, wire)
