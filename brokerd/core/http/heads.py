# Reads the heads of HTTP/1.1 messages, strictly. Pure. What two readers could understand in two ways is refused
# (RFC 9112 §3 to §6). The result says how the body is framed, so that nobody else has to look at those headers.
from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

LONGEST = 64 * 1024  # bytes of a head
END = b"\r\n\r\n"
REMEMBERED = 512  # lines: most lines of an API's answers and of a client's requests are the same each time
SHORT_LINE, SHORT_HEAD = 128, 4_096  # bytes of a line that is remembered, and of the head that it stands in
PRIVATE = frozenset((b"authorization", b"cookie", b"set-cookie"))  # they stay in memory no longer than their request
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])")
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_LINE = re.compile(rb"(" + _TOKEN + rb"):[\t ]*([\t -~\x80-\xff]*)")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_FRAMING = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"host", b"trailer")
)

Header = tuple[bytes, bytes, bytes]  # name in lower case, the line as it is passed on, value


class BadHead(ValueError):
    """No head that can be forwarded. The text says what was expected, and quotes nothing that came."""


class Framing(NamedTuple):
    """How a message goes on behind its head. `length`: of the body in bytes, None: not said. `options`: what Connection
    names, in lower case. `upgrade`: the value of Upgrade. `expects`: the sender waits for "100 Continue"."""

    length: int | None = None
    chunked: bool = False
    options: frozenset[bytes] = frozenset()
    upgrade: bytes = b""
    expects: bool = False
    host: bytes = b""


NO_FRAMING = Framing()


class RequestHead(NamedTuple):
    method: bytes
    target: bytes
    minor: int  # of HTTP/1.x
    headers: list[Header]
    framing: Framing

    @property
    def has_body(self) -> bool:
        return self.framing.chunked or bool(self.framing.length)

    @property
    def is_private(self) -> bool:
        """Whether it must not stay in memory when the request has ended."""
        return any(lower in PRIVATE for lower, _, _ in self.headers)

    @property
    def keeps_alive(self) -> bool:
        """Whether the client may send another request on its connection."""
        return _keeps_alive(self.minor, self.framing.options)


class ResponseHead(NamedTuple):
    status: int
    reason: bytes
    minor: int
    headers: list[Header]
    framing: Framing

    @property
    def keeps_alive(self) -> bool:
        return _keeps_alive(self.minor, self.framing.options)

    def ends_at_head(self, method: bytes) -> bool:
        """Whether no body follows, whatever the headers say (RFC 9112 §6.3)."""
        return method == b"HEAD" or self.status < 200 or self.status in (204, 304)


def read_request(data: bytes) -> RequestHead:
    """`data`: a whole head, END included. Raises BadHead."""
    first, *lines = _lines(data)
    if (found := _REQUEST.fullmatch(first)) is None or (headers := _headers(lines)) is None:
        raise BadHead("expected the head of an HTTP/1.1 request (RFC 9112)")
    minor = found[3][0] - 48
    framing = _framing_of(headers, minor, data)
    if framing.host == b"" and minor == 1:
        raise BadHead("expected a Host header")
    return RequestHead(found[1], found[2], minor, headers, framing)


def read_response(data: bytes) -> ResponseHead:
    """`data`: a whole head, END included. Raises BadHead."""
    first, *lines = _lines(data)
    read = _status if len(first) <= SHORT_LINE else _status.__wrapped__
    if (status := read(first)) is None or (headers := _headers(lines)) is None:
        raise BadHead("expected the head of an HTTP/1.1 answer (RFC 9112)")
    code, reason, minor = status
    return ResponseHead(code, reason, minor, headers, _framing_of(headers, minor, data))


def _lines(data: bytes) -> list[bytes]:
    """The first one is empty, and so no good one, if this is not a whole head."""
    return data[: -len(END)].split(b"\r\n") if data.endswith(END) else [b""]


@lru_cache(64)
def _status(line: bytes) -> tuple[int, bytes, int] | None:
    """Status, reason and minor version of the first line of an answer."""
    found = _RESPONSE.fullmatch(line)
    return None if found is None else (int(found[2]), found[3] or b"", found[1][0] - 48)


def _headers(lines: list[bytes]) -> list[Header] | None:
    """None: not all are header lines."""
    found = [_known.get(line) or _header(line) for line in lines]
    return None if None in found else found  # type: ignore[return-value]


_known: dict[bytes, Header] = {}


def _header(line: bytes) -> Header | None:
    if (found := _LINE.fullmatch(line)) is None:
        return None
    name, value = found[1], found[2].rstrip(b"\t ")
    header = name.lower(), b"%b: %b\r\n" % (name, value), value
    if len(line) <= SHORT_LINE and header[0] not in PRIVATE:
        if len(_known) >= REMEMBERED:
            _known.clear()
        _known[line] = header
    return header


def _framing_of(headers: list[Header], minor: int, data: bytes) -> Framing:
    special = tuple([(lower, value) for lower, _, value in headers if lower in _FRAMING])
    if not special:
        return NO_FRAMING
    return _framing(special, minor) if len(data) <= SHORT_HEAD else _framing.__wrapped__(special, minor)


@lru_cache(256)
def _framing(lines: tuple[tuple[bytes, bytes], ...], minor: int) -> Framing:
    special: dict[bytes, list[bytes]] = {}
    for lower, value in lines:
        special.setdefault(lower, []).append(value)
    length, coding = special.get(b"content-length"), special.get(b"transfer-encoding")
    if length is not None and coding is not None:
        raise BadHead("expected Content-Length or Transfer-Encoding, found both")
    if length is not None and (len(length) > 1 or not _NUMBER.fullmatch(length[0])):
        raise BadHead("expected one Content-Length, a whole number")
    if coding is not None and (minor == 0 or len(coding) > 1 or coding[0].lower() != b"chunked"):
        raise BadHead("expected no other Transfer-Encoding than chunked, and that in HTTP/1.1")
    if len(hosts := special.get(b"host", [])) > 1:
        raise BadHead("expected one Host header")
    expects = b"100-continue" in (each.lower() for each in special.get(b"expect", ()))
    return Framing(
        None if length is None else int(length[0]),
        coding is not None,
        frozenset(each.strip().lower() for line in special.get(b"connection", ()) for each in line.split(b",")),
        b", ".join(special.get(b"upgrade", ())),
        expects and minor == 1,
        hosts[0] if hosts else b"",
    )


def _keeps_alive(minor: int, options: frozenset[bytes]) -> bool:
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)
