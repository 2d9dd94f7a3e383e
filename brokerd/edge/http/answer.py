# Reads one HTTP/1.1 answer from a stream with h11, within limits of size, and of time for each read. tolerance.py
# repairs the head first. The errors quote nothing that the server wrote.
from __future__ import annotations

import re
from dataclasses import dataclass

import h11
import trio

from brokerd.edge.http.lenient_reading import repaired
from brokerd.edge.http.tls import broken_reason

# Bytes. The time that h11 needs to refuse a line grows with the square of its blanks: 60,000 blanks in a header take
# 35 s, in which no other task runs. Short reads and BLANKS limit that. Short reads also let other tasks run while a
# long answer is read.
READ_SIZE = 2048
BLANKS = b" " * 512
MAX_PIECES = 10_000  # of a body; 1 MiB in chunks of one byte would take seconds of CPU time
MAX_HEADERS = 256  # lines; the limit in bytes alone would allow 16,000
END_OF_HEAD = re.compile(rb"\n\r?\n")
INTERIM = re.compile(rb"HTTP/1\.[0-9] 1")  # another head follows (RFC 9110 section 15.2)
TLS_RECORD = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake


class BadAnswer(Exception):
    """The answer is not complete, or breaks the rules. The text says why; the caller adds which server it was."""


class TimedOut(BadAnswer):
    """Nothing came for too long."""


class TooLarge(BadAnswer):
    """Its body is larger than the limits."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """`head`: bytes of the status line and the headers, including 1xx answers before them. `body`: bytes of everything
    after that, including chunk headers. `read_timeout`: seconds. `read_size`: bytes for one read."""

    head: int
    body: int
    read_timeout: float
    read_size: int = READ_SIZE


class AnswerReader:
    """Reads one answer: `head` once, then `body` once. Raises BadAnswer.

    `body_so_far`: as much of the body as was received. `repaired`: the head broke HTTP's rules. `closed_unanswered`:
    the server closed the connection before it sent a byte. `is_tls`: the bytes received are TLS.

    Many attributes: how far the answer is read, and what was odd about it."""

    def __init__(self, protocol: h11.Connection, stream: trio.abc.ReceiveStream, limits: AnswerLimits) -> None:
        self._protocol = protocol
        self._stream = stream
        self._limits = limits
        self._received = 0
        self._head = b""  # the received part of a head that is not complete yet
        self._heads_size = 0  # of the complete heads
        self._head_size: int | None = None  # None until the last head is complete
        self._understood = False  # h11 has accepted the last head
        self._ended = False
        self._parts: list[bytes] = []
        self.repaired = self.closed_unanswered = self.is_tls = False

    @property
    def body_so_far(self) -> bytes:
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
        """The complete body as it was sent; nothing is decompressed."""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            self._parts.append(bytes(event.data))
            if len(self._parts) > MAX_PIECES:
                raise TooLarge(f"more than {MAX_PIECES} pieces in the answer")
        return self.body_so_far

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
                data = await self._stream.receive_some(self._limits.read_size)
        except trio.BrokenResourceError as error:
            self.closed_unanswered = not self._received
            raise BadAnswer(f"{broken_reason(error)} {self._where()}") from None
        if scope.cancelled_caught:
            raise TimedOut(f"timed out after {self._limits.read_timeout:g} s waiting for an answer")
        self._ended = not data
        self._received += len(data)
        self.closed_unanswered = not self._received
        if self._head_size is None:
            self._take_head(bytes(data))
        else:
            self._protocol.receive_data(bytes(data))
        if self._head_size is not None and self._received - self._head_size > self._limits.body:
            raise TooLarge(f"answer larger than {size_text(self._limits.body)}")

    def _take_head(self, data: bytes) -> None:
        """Collect heads until the last one is complete. h11 gets each head only when it is complete."""
        seen, self._head = len(self._head), self._head + data
        while self._head_size is None:
            self._check_head(max(0, seen - len(BLANKS)))
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
            repaired_head = repaired(head)
            self.repaired = self.repaired or repaired_head.replace(b"\r", b"") != head.replace(b"\r", b"")
            self._protocol.receive_data(repaired_head)
        if self._head:
            self._protocol.receive_data(self._head)
        if self._ended:
            self._protocol.receive_data(b"")

    def _check_head(self, start: int) -> None:
        if not self._head.startswith(b"HTTP/"[: len(self._head)]):
            self.is_tls = self._head.startswith(TLS_RECORD)
            raise BadAnswer("the answer is not HTTP")
        if BLANKS in self._head[start:].partition(b"\r\n\r\n")[0].replace(b"\t", b" "):
            raise BadAnswer(f"the answer is not HTTP: {len(BLANKS)} blanks in a row")

    def _broken_rule(self) -> BadAnswer:
        """In our own words, because the errors of h11 quote what was received."""
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
    """The size in the largest unit without a remainder: 1048576 is 1 MiB."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
