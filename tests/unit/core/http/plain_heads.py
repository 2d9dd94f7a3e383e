# A reader of heads that remembers nothing and reads each head with one expression: what heads.py is compared with.
from __future__ import annotations

import re

from brokerd.core.http.heads import BadHead, Framing, RequestHead, ResponseHead

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
LINES = rb"((?:" + TOKEN + rb":[\t -~\x80-\xff]*\r\n)*)\r\n"
REQUEST = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n" + LINES)
RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n" + LINES)
LINE = re.compile(rb"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")
NUMBER = re.compile(rb"[0-9]{1,18}")


def read_request(data: bytes) -> RequestHead:
    if (found := REQUEST.fullmatch(data)) is None:
        raise BadHead("expected the head of an HTTP/1.1 request (RFC 9112)")
    headers, framing = _headers(found[4], int(found[3]))
    if framing.host == b"" and found[3] == b"1":
        raise BadHead("expected a Host header")
    return RequestHead(found[1], found[2], int(found[3]), headers, framing)


def read_response(data: bytes) -> ResponseHead:
    if (found := RESPONSE.fullmatch(data)) is None:
        raise BadHead("expected the head of an HTTP/1.1 answer (RFC 9112)")
    headers, framing = _headers(found[4], int(found[1]))
    return ResponseHead(int(found[2]), found[3] or b"", int(found[1]), headers, framing)


def _headers(lines: bytes, minor: int) -> tuple[list[tuple[bytes, bytes, bytes]], Framing]:
    headers = [(name, value.rstrip(b"\t ")) for name, value in LINE.findall(lines)]
    special: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        special.setdefault(name.lower(), []).append(value)
    length, coding = special.get(b"content-length"), special.get(b"transfer-encoding")
    if length is not None and coding is not None:
        raise BadHead("expected Content-Length or Transfer-Encoding, found both")
    if length is not None and (len(length) > 1 or not NUMBER.fullmatch(length[0])):
        raise BadHead("expected one Content-Length, a whole number")
    if coding is not None and (minor == 0 or len(coding) > 1 or coding[0].lower() != b"chunked"):
        raise BadHead("expected no other Transfer-Encoding than chunked, and that in HTTP/1.1")
    if len(hosts := special.get(b"host", [])) > 1:
        raise BadHead("expected one Host header")
    expects = any(each.lower() == b"100-continue" for each in special.get(b"expect", ()))
    framing = Framing(
        None if length is None else int(length[0]),
        coding is not None,
        frozenset(each.strip().lower() for line in special.get(b"connection", ()) for each in line.split(b",")),
        b", ".join(special.get(b"upgrade", ())),
        expects and minor == 1,
        hosts[0] if hosts else b"",
    )
    return [(name.lower(), b"%b: %b\r\n" % (name, value), value) for name, value in headers], framing
