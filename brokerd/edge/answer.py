# Reads one HTTP/1.1 answer off a stream with h11, within limits: sizes, and seconds per read.
# It knows neither who answers nor what was asked; its reasons hold nothing that the peer wrote.
from __future__ import annotations

from dataclasses import dataclass

import h11
import trio

from brokerd.edge.tls import broken_reason

# Bytes. h11 takes the square of a line's blanks to refuse it (60,000 blanks in a header: 35 s, and everything stands
# still). Short reads and BLANKS bound that; they also let other tasks run between the pieces of a long answer.
READ_SIZE = 2048
BLANKS = b" " * 512
MAX_PIECES = 10_000  # of a body; in chunks of one byte each, 1 MiB would cost seconds of our time
MAX_HEADERS = 256  # lines; the limit in bytes alone would let 16,000 pass


class BadAnswer(Exception):
    """No whole answer. The text says why, fit for people, without saying who."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`head` counts status line and headers, 1xx answers before them included; `body` all that comes after, chunk
    headers included. Both in bytes; `read_timeout` in seconds."""

    head: int
    body: int
    read_timeout: float


class AnswerReader:
    """For one answer: `head` once, then `body` once. Raises BadAnswer."""

    def __init__(self, protocol: h11.Connection, stream: trio.abc.ReceiveStream, limits: Limits) -> None:
        self._protocol = protocol
        self._stream = stream
        self._limits = limits
        self._received = 0
        self._head_size: int | None = None  # None while the head is read
        self._ended = False

    async def head(self) -> h11.Response:
        """The answer's status and headers; 1xx answers before it are skipped (RFC 9110 section 15.2)."""
        while True:
            event = await self._event()
            if isinstance(event, h11.ConnectionClosed):
                raise BadAnswer("connection closed before an answer")
            size = self._received - len(self._protocol.trailing_data[0])
            if size > self._limits.head:
                raise self._too_large_head()
            if isinstance(event, h11.Response):
                break
        if len(event.headers) > MAX_HEADERS:
            raise BadAnswer(f"more than {MAX_HEADERS} headers")
        self._head_size = size
        return event

    async def body(self) -> bytes:
        """The whole body, as it was sent: nothing is decompressed."""
        parts = []
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            parts.append(bytes(event.data))
            if len(parts) > MAX_PIECES:
                raise BadAnswer(f"more than {MAX_PIECES} pieces in the answer")
        return b"".join(parts)

    async def _event(self) -> object:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise self._broken_rule(error) from None
            if event is not h11.NEED_DATA:
                return event
            await self._read()

    async def _read(self) -> None:
        if self._head_size is not None and len(self._protocol.trailing_data[0]) > READ_SIZE:
            raise BadAnswer("a chunk header or trailer is too long")
        try:
            with trio.move_on_after(self._limits.read_timeout) as scope:
                data = await self._stream.receive_some(READ_SIZE)
        except trio.BrokenResourceError as error:
            raise BadAnswer(f"{broken_reason(error)} {self._where()}") from None
        if scope.cancelled_caught:
            raise BadAnswer(f"timed out after {self._limits.read_timeout:g} s waiting for an answer")
        self._ended = not data
        self._received += len(data)
        self._protocol.receive_data(bytes(data))
        buffered = self._protocol.trailing_data[0]
        if self._head_size is None:
            self._look_at_head(buffered)
        elif self._received - self._head_size > self._limits.body:
            raise BadAnswer(f"answer larger than {size_text(self._limits.body)}")

    def _look_at_head(self, buffered: bytes) -> None:
        if not buffered.startswith(b"HTTP/"[: len(buffered)]):
            raise BadAnswer("the answer is not HTTP")
        if BLANKS in buffered.partition(b"\r\n\r\n")[0].replace(b"\t", b" "):
            raise BadAnswer(f"the answer is not HTTP: {len(BLANKS)} blanks in a row")

    def _broken_rule(self, error: h11.RemoteProtocolError) -> BadAnswer:
        # h11's own text quotes what was received.
        if error.error_status_hint == 431 and self._head_size is None:
            return self._too_large_head()
        if self._ended:
            return BadAnswer(f"connection closed {self._where()}")
        if self._head_size is None:
            return BadAnswer("the answer is not HTTP/1.1, or its headers break the rules")
        return BadAnswer("the answer's chunked coding is broken")

    def _where(self) -> str:
        return "in the middle of the answer" if self._received else "before an answer"

    def _too_large_head(self) -> BadAnswer:
        return BadAnswer(f"headers larger than {size_text(self._limits.head)}")


def size_text(size: int) -> str:
    """1048576 is 1 MiB."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
