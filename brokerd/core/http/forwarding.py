# What a proxy does to requests and answers: which requests it refuses, and which headers it passes on, replaces and
# drops (RFC 9110 §7.6). Pure. The token stands in one header of the request, and no header that came can remove it.
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from brokerd.core.http.heads import Header, RequestHead, ResponseHead

# Headers about one connection, never passed on. Those of the framing are written again by whoever sends the body.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-authenticate"),
        *(b"proxy-authentication-info", b"proxy-authorization", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade"),
    )
)
# Some servers take method or path from these, which nobody has checked then.
OVERRIDES = (
    *(b"x-http-method-override", b"x-http-method", b"x-method-override"),
    *(b"x-original-url", b"x-rewrite-url", b"x-original-uri"),
)
AUTHORIZATION = b"authorization"  # never passed on, even where the token stands in another header
NEVER = (b"CONNECT", b"TRACE")  # a tunnel to anywhere, and an echo of the token
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SAME_SITE = (b"same-origin", b"none")  # Sec-Fetch-Site of requests that no other site's page made
HTTP_AGAIN = re.compile(rb"(?i)(?:.*[\t ,])?(?:h2|http|tls)")  # what may not be upgraded to: requests nobody checks
# What servers disagree about: an empty segment and a segment of dots, both also with parameters (";x") or blanks; a
# backslash, a control character, and "%u002e". Segments of dots and such characters are looked for in what is encoded
# too.
_EMPTY = re.compile(rb"/(?:;[^/]*)?/|#")
_UNSAFE = re.compile(rb"/ *\.{1,2} *(?:;[^/]*)?(?:/|\Z)|[\x00-\x1f\x7f\\]|%[uU][0-9A-Fa-f]{4}")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
DECODED = 4  # times that a path may be decoded until nothing is left to decode


class NotForwarded(Exception):
    """The request is not forwarded. The text says why, and what to do."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Upstream:
    """`base` stands before the path of each request, without a slash at its end. `origin`: scheme and authority."""

    origin: str
    host: str  # for the Host header
    base: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The methods and paths that may be used, None: every one. In a path, `*` stands for any text."""

    methods: frozenset[bytes] | None = None
    paths: tuple[str, ...] | None = None
    _pattern: re.Pattern[bytes] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = (b".*".join(re.escape(part) for part in path.encode().split(b"*")) for path in self.paths or ())
        pattern = None if self.paths is None else re.compile(b"|".join(texts), re.DOTALL)
        object.__setattr__(self, "_pattern", pattern)

    def check(self, head: RequestHead) -> bytes:
        """The path, without its query. A path with encoded characters must be allowed in each of its readings. Raises
        NotForwarded."""
        target = head.target
        if head.method in NEVER:
            words = "CONNECT and TRACE are never forwarded; send the request itself to this proxy, as to a server"
            raise NotForwarded(405, "bad_request", words)
        if not target.startswith(b"/"):
            words = "expected a path, such as /v2/things: where the request goes is in the proxy's configuration"
            raise NotForwarded(400, "bad_request", words)
        path = target.partition(b"?")[0]
        readings = (path,) if b"%" not in path else _readings(path)
        if _EMPTY.search(path) or b"#" in target or not readings or any(map(_UNSAFE.search, readings)):
            words = "expected a path without //, . or .. between slashes, backslashes and control characters; what is "
            words += "encoded must be UTF-8"
            raise NotForwarded(400, "bad_request", words)
        if self.methods is not None and head.method not in self.methods:
            known = ", ".join(sorted(each.decode() for each in self.methods))
            raise NotForwarded(403, "denied", f"this proxy allows the methods {known}")
        if self._pattern is not None and not all(map(self._pattern.fullmatch, readings)):
            words = f"this proxy allows the paths {', '.join(self.paths or ())}"
            raise NotForwarded(403, "denied", words)
        return path


def _readings(path: bytes) -> Sequence[bytes]:
    """What servers may understand: the path as it stands, decoded again and again, and each with the characters that
    look alike (a full-width dot) as the plain ones. None of them, if it is not properly encoded UTF-8: what looks like
    more bytes than it needs is how ".." is hidden from whoever checks a path."""
    found = [path]
    if _NO_ESCAPE.search(path):
        return ()
    while _ESCAPE.search(found[-1]):
        if len(found) > DECODED:
            return ()
        found.append(unquote_to_bytes(found[-1]))
    try:
        texts = [each.decode() for each in found]
    except UnicodeDecodeError:
        return ()
    plain = [unicodedata.normalize("NFKC", text).encode() for text in texts if not text.isascii()]
    # A full-width percent sign begins an escape only now: two servers disagree about whether it is decoded.
    return () if any(map(_ESCAPE.search, plain[-1:])) else (*found, *plain)


def hosts_of(host: str, port: int) -> frozenset[bytes]:
    """The values of the Host header by which a client of a TCP port may call it."""
    own = f"[{host}]" if ":" in host else host
    names = {*LOCAL_HOSTS, own}
    return frozenset(each.encode() for name in names for each in (f"{name}:{port}", *([name] if port == 80 else ())))


def check_browser(head: RequestHead, hosts: frozenset[bytes]) -> None:
    """At a TCP port: a page in a browser may use the proxy only if the proxy served it. Raises NotForwarded."""
    host = head.framing.host
    if host.lower() not in hosts and (host or head.minor):  # every browser sends a Host
        words = f"expected the Host {max(hosts).decode()}, and a request that no page of another site makes"
        raise NotForwarded(421, "bad_request", words)
    for lower, _, value in head.headers:
        foreign = (lower == b"sec-fetch-site" and value not in SAME_SITE) or (
            lower == b"origin" and value != b"http://" + host
        )
        if foreign:
            raise NotForwarded(403, "denied", "pages of other sites may not use this proxy")


def request_lines(head: RequestHead, upstream: Upstream, token: tuple[str, str]) -> bytes:
    """The head for the upstream, without the headers of the body's framing and the empty line. `token`: the name and
    value of its header."""
    name, _ = token
    return lines_before_token(head, upstream, name) + token_line(token) + lines_after_token(head)


def lines_before_token(head: RequestHead, upstream: Upstream, name: str) -> bytes:
    """`name`: of the token's header."""
    drop = (*head.framing.options, *OVERRIDES, AUTHORIZATION, name.lower().encode())
    base, host = upstream.base.encode(), upstream.host.encode()
    lines = [b"%b %b%b HTTP/1.1\r\nHost: %b\r\n" % (head.method, base, head.target, host)]
    lines += _kept(_as_cgi(head.headers), (each.replace(b"_", b"-") for each in drop))
    return b"".join(lines)


def _as_cgi(headers: Iterable[Header]) -> Iterable[Header]:
    """Names as servers see them that cannot tell `_` from `-` (CGI, RFC 3875 §4.1.18)."""
    return ((lower.replace(b"_", b"-"), line, value) for lower, line, value in headers)


def token_line(token: tuple[str, str]) -> bytes:
    """`token`: the name and value of its header."""
    return "{}: {}\r\n".format(*token).encode("latin-1")


def lines_after_token(head: RequestHead) -> bytes:
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.framing.upgrade if upgrades(head) else b""


def response_lines(head: ResponseHead, upstream: Upstream) -> bytes:
    """The head for the client, without the headers of the body's framing and the empty line. A redirect to the
    upstream's own address leads through the proxy again."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    lines += _kept(head.headers, head.framing.options)
    if 300 <= head.status < 400 or head.status == 201:
        lines = [_through(line, upstream) for line in lines]
    if head.status == 101:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.framing.upgrade)
    return b"".join(lines)


def upgrades(head: RequestHead) -> bool:
    """Whether the connection may come to speak another protocol (RFC 9110 §7.8), one that is not HTTP. Behind a body
    the server would have to ignore the wish, so it is not passed on."""
    wish = head.framing.upgrade
    asks = bool(wish) and b"upgrade" in head.framing.options and not head.has_body
    return asks and not HTTP_AGAIN.match(wish)


def _kept(headers: Iterable[Header], drop: Iterable[bytes]) -> list[bytes]:
    gone = HOP_BY_HOP.union(drop) if drop else HOP_BY_HOP
    return [line for lower, line, _ in headers if lower not in gone]


def _through(line: bytes, upstream: Upstream) -> bytes:
    name, _, value = line.partition(b": ")
    if name.lower() not in (b"location", b"content-location"):
        return line
    for begin in (f"{upstream.origin}{upstream.base}/", f"{upstream.base}/"):
        rest = value[len(begin) :]
        if value.startswith(begin.encode()) and not value.startswith(b"//") and not rest.startswith((b"/", b"\\")):
            return b"%b: /%b" % (name, rest)
    return line
