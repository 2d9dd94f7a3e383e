# Reads the heads of HTTP/1.1 messages, strictly. Pure. What two readers could understand in two ways is refused
# (RFC 9112 §3 to §6). The result says how the body is framed, so that nobody else has to look at those headers.
from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 64 * 1024  # bytes of a head
END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINES = rb"((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)*)\r\n"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n" + _LINES)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n" + _LINES)
_LINE = re.compile(rb"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_FRAMING = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"host", b"trailer")
)

Header = tuple[bytes, bytes, bytes]  # name in lower case, name as it came, value


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
    if (found := _REQUEST.fullmatch(data)) is None:
        raise BadHead("expected the head of an HTTP/1.1 request (RFC 9112)")
    minor = found[3][0] - 48
    headers, framing = _headers(found[4], minor)
    if framing.host == b"" and minor == 1:
        raise BadHead("expected a Host header")
    return RequestHead(found[1], found[2], minor, headers, framing)


def read_response(data: bytes) -> ResponseHead:
    """`data`: a whole head, END included. Raises BadHead."""
    if (found := _RESPONSE.fullmatch(data)) is None:
        raise BadHead("expected the head of an HTTP/1.1 answer (RFC 9112)")
    minor = found[1][0] - 48
    headers, framing = _headers(found[4], minor)
    return ResponseHead(int(found[2]), found[3] or b"", minor, headers, framing)


def _headers(lines: bytes, minor: int) -> tuple[list[Header], Framing]:
    headers = [(name.lower(), name, value.rstrip(b"\t ")) for name, value in _LINE.findall(lines)]
    special: dict[bytes, list[bytes]] = {}
    for lower, _, value in headers:
        if lower in _FRAMING:
            special.setdefault(lower, []).append(value)
    return headers, _framing(special, minor) if special else Framing()


def _framing(special: dict[bytes, list[bytes]], minor: int) -> Framing:
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
