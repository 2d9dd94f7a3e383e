# Reads one HTTP/1.1 answer off a stream with h11, within limits: sizes, and seconds per read. Heads are mended first.
# It knows neither who answers nor what was asked; its reasons hold nothing that the peer wrote.
from __future__ import annotations

import re
from dataclasses import dataclass

import h11
import trio

from brokerd.edge.mending import mended
from brokerd.edge.tls import broken_reason

# Bytes. h11 takes the square of a line's blanks to refuse it (60,000 blanks in a header: 35 s, and everything stands
# still). Short reads and BLANKS bound that; they also let other tasks run between the pieces of a long answer.
READ_SIZE = 2048
BLANKS = b" " * 512
MAX_PIECES = 10_000  # of a body; in chunks of one byte each, 1 MiB would cost seconds of our time
MAX_HEADERS = 256  # lines; the limit in bytes alone would let 16,000 pass
END_OF_HEAD = re.compile(rb"\n\r?\n")
INTERIM = re.compile(rb"HTTP/1\.[0-9] 1")  # another head follows (RFC 9110 section 15.2)
TLS_RECORD = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake


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
    """For one answer: `head` once, then `body` once. Raises BadAnswer. `came` is as much of the body as came; `mended`:
    its head was against the rules; `hung_up`: the other side went away without a byte; `tls`: what came is TLS."""

    def __init__(self, protocol: h11.Connection, stream: trio.abc.ReceiveStream, limits: Limits) -> None:
        self._protocol = protocol
        self._stream = stream
        self._limits = limits
        self._received = 0
        self._head = b""  # what came of a head that is not whole
        self._heads_size = 0  # of the heads that were whole
        self._head_size: int | None = None  # None until the last head is whole
        self._understood = False  # what h11 made of it
        self._ended = False
        self._parts: list[bytes] = []
        self.mended = self.hung_up = self.tls = False

    @property
    def came(self) -> bytes:
        return b"".join(self._parts)

    async def head(self) -> h11.Response:
        """The answer's status and headers; 1xx answers before it are skipped (RFC 9110 section 15.2)."""
        while True:
            event = await self._event()
            if isinstance(event, h11.ConnectionClosed):
                raise BadAnswer("connection closed before an answer")
            if isinstance(event, h11.Response):
                self._understood = True
                return event

    async def body(self) -> bytes:
        """The whole body, as it was sent: nothing is decompressed."""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            self._parts.append(bytes(event.data))
            if len(self._parts) > MAX_PIECES:
                raise BadAnswer(f"more than {MAX_PIECES} pieces in the answer")
        return self.came

    async def _event(self) -> object:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                raise self._broken_rule() from None
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
            self.hung_up = not self._received
            raise BadAnswer(f"{broken_reason(error)} {self._where()}") from None
        if scope.cancelled_caught:
            raise BadAnswer(f"timed out after {self._limits.read_timeout:g} s waiting for an answer")
        self._ended = not data
        self._received += len(data)
        self.hung_up = not self._received
        if self._head_size is None:
            self._take_head(bytes(data))
        else:
            self._protocol.receive_data(bytes(data))
        if self._head_size is not None and self._received - self._head_size > self._limits.body:
            raise BadAnswer(f"answer larger than {size_text(self._limits.body)}")

    def _take_head(self, data: bytes) -> None:
        """Collect heads until the last one is whole; h11 sees none before it is."""
        seen, self._head = len(self._head), self._head + data
        while self._head_size is None:
            self._look_at_head(max(0, seen - len(BLANKS)))
            end = END_OF_HEAD.search(self._head, max(0, seen - 2))
            seen = 0
            size = end.end() if end else len(self._head)
            if self._heads_size + size > self._limits.head:
                raise self._too_large_head()
            if end is None:
                if self._ended:
                    self._protocol.receive_data(self._head)
                    self._protocol.receive_data(b"")
                return
            head, self._head = self._head[:size], self._head[size:]
            if head.count(b"\n") - 2 > MAX_HEADERS:
                raise BadAnswer(f"more than {MAX_HEADERS} headers")
            self._heads_size += size
            if not INTERIM.match(head):
                self._head_size = self._heads_size
            mended_head = mended(head)
            self.mended = self.mended or mended_head.replace(b"\r", b"") != head.replace(b"\r", b"")
            self._protocol.receive_data(mended_head)
        if self._head:
            self._protocol.receive_data(self._head)
        if self._ended:
            self._protocol.receive_data(b"")

    def _look_at_head(self, start: int) -> None:
        if not self._head.startswith(b"HTTP/"[: len(self._head)]):
            self.tls = self._head.startswith(TLS_RECORD)
            raise BadAnswer("the answer is not HTTP")
        if BLANKS in self._head[start:].partition(b"\r\n\r\n")[0].replace(b"\t", b" "):
            raise BadAnswer(f"the answer is not HTTP: {len(BLANKS)} blanks in a row")

    def _broken_rule(self) -> BadAnswer:
        """In our words: h11's quote what was received."""
        if self._ended:
            return BadAnswer(f"connection closed {self._where()}")
        if not self._understood:
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
