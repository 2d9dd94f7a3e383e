# The HTTP client against any bytes of a server, on virtual time: an answer within the limits or one TransportError
# that shows none of them; always in the end, having read no more than the limits allow. First byte: how the stream
# ends; second: into which pieces it is cut.
from __future__ import annotations

from dataclasses import replace

import h11
import trio
import trio.testing

from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import TransportError
from brokerd.edge.http.answer import MAX_HEADERS, READ_SIZE
from brokerd.edge.http.client import HttpClient
from brokerd.edge.http.connection import Attempt, HttpConnection, HttpSettings, Origin
from tests.stress.fuzz.shown_text import fit_for_people
from tests.unit.edge.http.fixtures import StepClock

SETTINGS = HttpSettings(max_headers=4096, max_answer=8192)
REQUEST = Request("POST", "https://idp.example/token", (("Accept", "application/json"),), b"a=b")
SPENDS, ENDLESS, HANGS, BREAKS = 1, 2, 4, 8  # bits of the first byte; without the last three the stream ends
MOST_READ = SETTINGS.max_headers + SETTINGS.max_answer + 2 * READ_SIZE
CUT_ALIKE = READ_SIZE  # bytes up to which the pieces cannot matter to any limit


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    how, step, stream = data[0], 1 + data[1] * 8, data[2:]
    found = answered(how, step, stream)
    if len(stream) <= CUT_ALIKE and not how & ENDLESS:
        again = answered(how, READ_SIZE, stream)
        assert seen(found) == seen(again), f"in pieces of {step} bytes: {found}; at once: {again}"


def answered(how: int, step: int, stream: bytes) -> Response | TransportError:
    peer = Peer(how, step, stream)
    found = trio.run(
        _ask,
        peer,
        replace(REQUEST, sends_stored=bool(how & SPENDS)),
        clock=trio.testing.MockClock(autojump_threshold=0),
    )
    assert peer.given <= MOST_READ, f"{peer.given} bytes were read"
    if isinstance(found, TransportError):
        assert found.sent, "the request had left"
        assert peer.closed, "a connection is left open"
        fit_for_people(found.reason)
        assert found.__cause__ is None
        assert found.__context__ is None
        assert found.reason.removeprefix("idp.example:443: ").isascii()
        assert str(found) not in stream.decode("latin-1") or len(stream) < 8
    else:
        within_limits(found, stream)
        assert peer.closed or not how & SPENDS, "a connection that a spending request went over is kept"
    return found


def within_limits(found: Response, stream: bytes) -> None:
    assert 200 <= found.status <= 999
    assert len(found.body) <= SETTINGS.max_answer
    assert len(found.headers) <= MAX_HEADERS
    assert sum(len(name) + len(value) for name, value in found.headers) <= SETTINGS.max_headers
    for name, value in found.headers:
        assert name == name.lower()
        assert not set("\r\n\0") & set(name + value), "a header of several lines"
    assert str(found.status).encode() in stream
    assert found.sent_at.boot <= found.at.boot


def seen(found: Response | TransportError) -> object:
    """What has to be the same however an answer is cut into pieces."""
    return "no answer" if isinstance(found, TransportError) else (found.status, found.headers, found.body)


async def _ask(peer: Peer, request: Request) -> Response | TransportError:
    client = HttpClient(SETTINGS, StepClock(), environ={})
    client._opener = peer  # type: ignore[assignment] - in the place of DNS, TCP and TLS
    began = trio.current_time()
    try:
        return await client.send(request)
    except TransportError as error:
        return error
    finally:
        assert trio.current_time() - began <= SETTINGS.total_timeout
        kept = sum(map(len, client._idle.values()))
        assert kept == (not peer.closed)
        await client.aclose()


class Peer(trio.abc.Stream):
    """A provider's connection that says what the input says; opener, wire and stream at once."""

    def __init__(self, how: int, step: int, stream: bytes) -> None:
        self._how, self._step, self._left, self._whole = how, step, stream, stream
        self.taken = 0
        self.given = 0
        self.closed = False

    async def open(self, _origin: Origin, _attempt: Attempt, *, guarded: bool = False) -> HttpConnection:
        await trio.lowlevel.checkpoint()
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=SETTINGS.max_headers)
        return HttpConnection(self, self, protocol)  # type: ignore[arg-type]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.taken += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left and self._whole:
            if self._how & ENDLESS:
                self._left = self._whole[-64:]
            elif self._how & HANGS:
                await trio.sleep_forever()
            elif self._how & BREAKS:
                raise trio.BrokenResourceError
        size = min(max_bytes or self._step, self._step)
        data, self._left = self._left[:size], self._left[size:]
        self.given += len(data)
        return data

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
