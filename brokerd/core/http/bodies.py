# How a body is framed (RFC 9112 §6 and §7). Pure. Readers cut the bytes of a connection into pieces of a body, and say
# where it ends. A body is read by its sender's framing and written in ours, so no framing passes through unread.
from __future__ import annotations

import re
from typing import Protocol

from brokerd.core.http.heads import BadHead, RequestHead, ResponseHead

LONGEST_LINE = 1_024  # bytes of the line before a chunk, its extensions included
LINES = 1_000  # lines that are read in one go: chunks of one byte each must not delay other connections
LONGEST_TRAILERS = 16 * 1024  # bytes behind the last chunk; they are dropped
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")


class Body(Protocol):
    """`take` returns what of the bytes is contents, and how many bytes were read. If the body has ended, what is behind
    those is the next message. `ended`: all of the body was taken. `truncated`: an end of the connection now would cut
    it off."""

    ended: bool

    def take(self, data: memoryview) -> tuple[bytes | memoryview, int]:
        """Raises BadHead."""
        ...

    @property
    def truncated(self) -> bool: ...


class CountedBody:
    """A body of a known length, 0 for none."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.ended = length == 0

    @property
    def truncated(self) -> bool:
        return self.left > 0

    def take(self, data: memoryview) -> tuple[bytes | memoryview, int]:
        piece = data[: self.left]
        self.left -= len(piece)
        self.ended = not self.left
        return piece, len(piece)


class EndlessBody:
    """A body that ends with its connection."""

    ended = False
    truncated = False

    def take(self, data: memoryview) -> tuple[bytes | memoryview, int]:
        return data, len(data)


class ChunkedBody:
    """Extensions of chunks and trailers are read and dropped (RFC 9112 §7.1)."""

    truncated = True

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the present chunk
        self._line = bytearray()  # the beginning of a line
        self._closes = False  # the line break behind a chunk comes next
        self._trailers = -1  # bytes of them so far; -1: the last chunk has not come

    def take(self, data: memoryview) -> tuple[bytes | memoryview, int]:
        found: list[memoryview] = []
        at = lines = 0
        while at < len(data) and not self.ended and lines < LINES:
            if self._left:
                found.append(data[at : at + self._left])
                at += len(found[-1])
                self._left -= len(found[-1])
                self._closes = not self._left
                continue
            room = LONGEST_LINE - len(self._line)
            ahead = bytes(data[at : at + room])
            end = ahead.find(b"\n")
            lines += 1
            self._line += ahead[: end + 1] if end >= 0 else ahead
            at += end + 1 if end >= 0 else len(ahead)
            if end >= 0:
                self._read_line(bytes(self._line))
                self._line.clear()
            elif len(self._line) >= LONGEST_LINE:
                raise BadHead(f"expected a line of at most {LONGEST_LINE} bytes between chunks")
        return found[0] if len(found) == 1 else b"".join(found), at

    def _read_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise BadHead("expected lines that end in CR LF between chunks")
        line = line[:-2]
        if self._closes:
            if line:
                raise BadHead("expected a line break behind a chunk")
            self._closes = False
        elif self._trailers < 0:
            if (size := _SIZE.fullmatch(line)) is None:
                raise BadHead("expected the size of a chunk in hexadecimal digits")
            self._left = int(size[1], 16)
            self._trailers = -1 if self._left else 0
        elif not line:
            self.ended = True
        else:
            self._trailers += len(line)
            if self._trailers > LONGEST_TRAILERS or not _TRAILER.fullmatch(line):
                raise BadHead("expected trailers as header lines, 16 KiB in all")


def of_request(head: RequestHead) -> Body:
    if head.framing.chunked:
        return ChunkedBody()
    return CountedBody(head.framing.length or 0)


def of_response(head: ResponseHead, method: bytes) -> Body:
    if head.ends_at_head(method):
        return CountedBody(0)
    if head.framing.chunked:
        return ChunkedBody()
    return EndlessBody() if head.framing.length is None else CountedBody(head.framing.length)


def chunk(piece: bytes | memoryview) -> bytes:
    return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))


LAST_CHUNK = b"0\r\n\r\n"
