# The server's side of HTTP/1.0 and 1.1: cuts requests out of bytes with h11, and makes bytes of answers. One request at
# a time: the next one is read when this one is answered. What could be read in two ways is refused (RFC 9112 §6.3).
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import h11

HEAD = 16 * 1024  # bytes of a request's head
BODY = 256 * 1024 + 1024  # bytes of its body: a refused token, and a line break
PIPELINED = 16 * 1024  # bytes of further requests that are kept while one is answered
FAULTS = (  # h11's words
    "illegal request line",
    "illegal header line",
    "no request line received",
    "Missing mandatory Host: header",
    "Found multiple Host: headers",
    "Found multiple conflicting Content-Length headers",
    "conflicting Content-Length headers",
    "bad Content-Length",
    "multiple Transfer-Encoding headers",
    "Only Transfer-Encoding: chunked is supported",
    "Receive buffer too long",
)
TWO_WAYS = re.compile(rb"(?<!\r)\n|\n[ \t]")  # in a head: a line that ends in LF alone, or a folded one; h11 reads both
ABSOLUTE = re.compile(
    r"(?i:https?)://[^/?#@]+(/[^?#]*)?(\?[^#]*)?"
)  # as a proxy is asked (RFC 9112 §3.2.2): path, query
FIELDS = 64  # parameters of a query
REQUEST_ID = b"x-request-id"
FIXED = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
# The short way: a whole GET whose header lines leave nothing to decide is read and answered without h11, in a fraction
# of the time. The answers are h11's, byte for byte (tests/stress/fuzz/http_server.py compares the two on any bytes).
_DECIDES = rb"content-length|transfer-encoding|connection(?!: keep-alive\r)|expect|upgrade|origin|host|x-request-id"
_LINE = rb"(?!(?i:" + _DECIDES + rb"):)[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n"
PLAIN = re.compile(rb"GET (/[!-~]*) HTTP/1\.1\r\n(?:" + _LINE + rb")*[Hh]ost: ([!-~]+)\r\n(?:" + _LINE + rb")*\r\n")


class BadHttp(Exception):
    """What came is no request that can be answered. The text says what was expected; no secret is in it."""


class HttpRequest(NamedTuple):
    """`path` is the part before "?", still percent-encoded. `query` has each key once. `origin`: a browser's page sent
    it. `request_id`: X-Request-ID, whatever it holds. `host`: as the client named it."""

    method: str
    path: str
    query: Mapping[str, str | list[str]]
    body: bytes
    origin: str | None
    request_id: str | None = None
    host: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(unquote(part) for part in self.path.split("/")[1:])


class HttpReader:
    """The requests of one connection, and the bytes of their answers. `short`: whether the short way may be taken."""

    def __init__(self, *, short: bool = True) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self._short = short
        self._plain: HttpRequest | None = None  # it came the short way, and waits to be taken
        self._last: tuple[bytes, HttpRequest] | None = None  # the one before: a client says the same again
        self._buffered = False  # h11 has bytes
        self._head: h11.Request | None = None
        self._method = b"GET"
        self._body = bytearray()
        self._answering = False
        self._by_h11 = True  # the request that is being answered

    @property
    def partial(self) -> bool:
        return not self._answering and (self._head is not None or bool(self._h11.trailing_data[0]))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing of a request is there, and none is being answered."""
        return not self._buffered and not self._answering and self._plain is None

    @property
    def plain(self) -> bytes | None:
        """The bytes of the request that was read last, if it came the short way: then all of it came at once, and the
        connection goes on after its answer."""
        return self._last[0] if self._last is not None and not self._by_h11 else None

    @property
    def has_more(self) -> bool:
        """Whether bytes came behind the request that is being answered."""
        return bool(self._h11.trailing_data[0])

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read before the request that is being answered has its answer."""
        return self._answering and len(self._h11.trailing_data[0]) >= PIPELINED

    def feed(self, data: bytes) -> None:
        if self._short and not self._buffered and not self._answering and self._plain is None:
            if self._last is not None and self._last[0] == data:
                self._plain = self._last[1]
                return
            if found := PLAIN.fullmatch(data):
                with contextlib.suppress(BadHttp):  # its query: said by the long way
                    self._plain = _request(b"GET", found[1], b"", None, None, found[2].decode("latin-1"))
                    self._last = data, self._plain
                    return
        self._buffered = True
        self._h11.receive_data(data)

    def __iter__(self) -> Iterator[HttpRequest]:
        """The next whole request; none while one is being answered. Raises BadHttp."""
        while not self._answering:
            if self._plain is not None:
                request, self._plain = self._plain, None
                self._answering, self._by_h11 = True, False
                yield request
                continue
            if not self._buffered:
                return
            self._check_lines()
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise BadHttp(f"expected an HTTP/1.1 request; found: {_fault(str(error))}") from None
            if isinstance(event, h11.Request):
                self._head = _checked(event)
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > BODY:
                    raise BadHttp(f"expected a body of at most {BODY} bytes")
            elif isinstance(event, h11.EndOfMessage):
                head, body = self._head, bytes(self._body)
                assert head is not None
                if event.headers:
                    raise BadHttp("expected no headers behind a body")
                self._head, self._answering, self._by_h11, self._method = None, True, True, head.method
                self._body.clear()
                found = (_header(head, name) for name in (b"origin", REQUEST_ID, b"host"))
                yield _request(head.method, head.target, body, *found)
            else:
                return

    def _check_lines(self) -> None:
        """Raises BadHttp."""
        if self._h11.their_state is h11.IDLE:
            data = self._h11.trailing_data[0]
            end = data.find(b"\r\n\r\n")
            if TWO_WAYS.search(data, 0, len(data) if end < 0 else end):
                raise BadHttp("expected an HTTP/1.1 request; found: a folded line, or one that does not end in CR LF")

    @property
    def wants_body(self) -> bool:
        """Whether the client waits for a word before it sends its body (Expect: 100-continue)."""
        return self._buffered and self._h11.they_are_waiting_for_100_continue

    def proceed(self) -> bytes:
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""

    def begin(self, status: int, content_type: str, **headers: str) -> bytes:
        """The head of an answer without a length."""
        reason = HTTPStatus(status).phrase
        fixed = [
            ("Content-Type", content_type),
            *FIXED,
            *((name.replace("_", "-"), text) for name, text in headers.items()),
        ]
        if self._by_h11:
            return self._h11.send(h11.Response(status_code=status, headers=fixed, reason=reason.encode())) or b""
        if "Content_Length" not in headers:
            fixed.append(("Transfer-Encoding", "chunked"))
        lines = "".join(f"{name}: {text}\r\n" for name, text in fixed)
        return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode("latin-1")

    def piece(self, data: bytes) -> bytes:
        """A piece of an answer without a length."""
        if self._by_h11:
            return self._h11.send(h11.Data(data=data)) or b""
        return b"%x\r\n%b\r\n" % (len(data), data)

    def end(self) -> bytes:
        """The end of an answer without a length. Nothing follows it."""
        return (self._h11.send(h11.EndOfMessage()) or b"") if self._by_h11 else b"0\r\n\r\n"

    def answer(self, status: int, content_type: str, body: bytes, **headers: str) -> tuple[bytes, bool]:
        """A whole answer, and whether the connection may be used again."""
        head = self.begin(status, content_type, Content_Length=str(len(body)), **headers)
        if not self._by_h11:
            self._answering = False
            return head + body, True
        if self._method == b"HEAD":
            body = b""
        data = head + self.piece(body) + (self._h11.send(h11.EndOfMessage()) or b"")
        again = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        if again:
            self._h11.start_next_cycle()
            self._answering = False
            self._buffered = self.has_more
        return data, again


def _checked(head: h11.Request) -> h11.Request:
    """h11 takes a message that has both lengths; a proxy in between may read it in the other way."""
    names = {name for name, _ in head.headers}
    if head.http_version not in (b"1.0", b"1.1"):
        raise BadHttp(f"expected HTTP/1.0 or 1.1, found {head.http_version.decode('ascii')}")
    if head.http_version == b"1.0" and b"transfer-encoding" in names:
        raise BadHttp("expected no Transfer-Encoding in HTTP/1.0")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise BadHttp("expected Content-Length or Transfer-Encoding, found both")
    return head


def _header(head: h11.Request, name: bytes) -> str | None:
    """All values of that header; None: there is none."""
    found = [value.decode("latin-1") for each, value in head.headers if each == name]
    return ", ".join(found) if found else None


def _request(
    method: bytes, target_bytes: bytes, body: bytes, origin: str | None, request_id: str | None, host: str | None
) -> HttpRequest:
    target = target_bytes.decode("ascii")
    found: dict[str, str | list[str]] = {}
    try:
        if not target.startswith("/"):
            whole = ABSOLUTE.fullmatch(target)
            target = f"{whole[1] or '/'}{whole[2] or ''}" if whole else ""
        path, _, query = target.partition("?")
        for key, value in parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS) if query else ():
            before = found.get(key)
            found[key] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    except ValueError:
        raise BadHttp(f"expected a path and at most {FIELDS} parameters") from None
    return HttpRequest(method.decode("ascii"), path, found, body, origin, request_id, host or "")


def _fault(text: str) -> str:
    """What h11 found, in its words, without the bytes that came: they may hold a token that a client misplaced."""
    return next((each for each in FAULTS if text.startswith(each)), "what is no HTTP/1.1 (RFC 9112)")
