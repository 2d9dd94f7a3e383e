# The table of faults: what a provider, or what stands between it and us, does with a connection, and what an operator
# is to read of it in the grant's status.
from __future__ import annotations

import contextlib
import functools
import gzip
import json
import socket
import ssl
import warnings
from dataclasses import dataclass

import trio
import trustme

from tests.scenario.hostile.servers import Fault, http
from tests.unit.edge.http.fixtures import server_tls
from tests.unit.edge.http.servers import Peer

HTML = b"<!doctype html><title>Welcome</title><p>Please sign in to use this network."
LEAKED = b"test-only-leaked-by-the-provider-0123456789abcdef"  # a token in an error's body
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS = json.dumps({"access_token": LEAKED.decode(), "token_type": "Bearer", "expires_in": 60}).encode()
STRANGE = "not in the provider's format"


@dataclass(frozen=True)
class Row:
    """A fault and its outcome. `touched`: the refresh token may be used up, so the grant is marked interrupted (law
    3). `way`: the connection that the fault meets: plain, tls, or proxy."""

    name: str
    fault: Fault
    words: str
    touched: bool = True
    way: str = "plain"


def say(*answers: bytes) -> Fault:
    """Hears the request, then says so much, and keeps the connection open until the other side closes."""

    async def fault(peer: Peer) -> None:
        await peer.request()
        for answer in answers:
            await peer.say(answer)
        await peer.hears_the_end()

    return fault


def cut(answer: bytes, *, reset: bool = False) -> Fault:
    """Hears the request, says so much, and is gone."""

    async def fault(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        if reset:
            peer.reset()

    return fault


def endless(start: bytes, more: bytes) -> Fault:
    async def fault(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        while True:
            await peer.say(more)

    return fault


async def echo(peer: Peer) -> None:
    """A framework's debug page: the request back, its secrets in every header and field."""
    await peer.say(http(500, await peer.request(), kind="text/plain"))


async def echo_in_form(peer: Peer) -> None:
    request = (await peer.request()).decode()
    await peer.say(http(400, json.dumps({"error": "server_error", "error_description": request}).encode()))


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def hold(peer: Peer) -> None:
    await peer.hears_the_end()


def secured(context: ssl.SSLContext) -> Fault:
    """A handshake with another certificate, or other rules."""

    async def fault(peer: Peer) -> None:
        peer.stream = trio.SSLStream(peer.raw, context, server_side=True)
        await peer.hears_the_end()

    return fault


def after_hello(answer: bytes) -> Fault:
    """What is said in the place of a ServerHello."""

    async def fault(peer: Peer) -> None:
        await peer.raw.receive_some()
        await peer.say(answer)
        await peer.raw.send_eof()
        await peer.hears_the_end()

    return fault


def alerting(context: ssl.SSLContext) -> Fault:
    """A blocking server: trio's sends no alert when it refuses a handshake."""

    def refuse(sock: socket.socket) -> None:
        with sock, context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as its:
            with contextlib.suppress(ssl.SSLError, OSError):
                its.do_handshake()
            with contextlib.suppress(OSError):
                its.shutdown(socket.SHUT_WR)
                while its.recv(4096):
                    pass

    async def fault(peer: Peer) -> None:
        sock = socket.socket(fileno=socket.dup(peer.raw.socket.fileno()))
        sock.setblocking(True)
        await trio.to_thread.run_sync(refuse, sock, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))

    return fault


def self_signed() -> ssl.SSLContext:
    """A certificate that vouches for itself alone."""
    own = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with own.private_key_pem.tempfile() as key, own.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)
    return context


def unknowing() -> ssl.SSLContext:
    """A server that serves other names and says so (SNI)."""
    context = server_tls("127.0.0.1")
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


def nothing_in_common() -> ssl.SSLContext:
    context = server_tls("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    return context


def too_old() -> ssl.SSLContext:
    context = server_tls("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def answers() -> list[Row]:
    """Whole answers that are not the provider's own, or say nothing of the grant."""
    wide = b'{"access_token": ' + b"[" * 100_000
    return [
        Row("captive-portal", say(http(200, HTML, kind="text/html")), "answered 200 with text/html"),
        Row("captive-redirect", say(http(302, b"", "Location: http://portal.example/")), "answered 302"),
        Row("captive-511", say(http(511, HTML, kind="text/html")), "answered 511"),
        Row("proxy-403", say(http(403, HTML, kind="text/html")), "answered 403 with text/html"),
        Row("proxy-407", say(http(407, HTML, kind="text/html")), "answered 407"),
        Row("waf-401", say(http(401, HTML, kind="text/html")), "answered 401 with text/html"),
        Row("not-found", say(http(404, b"404 page not found\n", kind="text/plain")), "answered 404 with text/plain"),
        Row("html-400", say(http(400, b"invalid_grant", kind="text/html")), "answered 400 with text/html"),
        Row("json-400", say(http(400, b'{"message": "invalid_grant"}')), STRANGE),
        Row("gateway-404", say(http(404, b'{"status": 404, "error": "Not Found"}')), "404 with application/json"),
        Row(
            "gateway-403", say(http(403, b'{"error": "Forbidden", "message": "no"}')), "not in the provider's format: "
        ),
        Row("gateway-401", say(http(401, b'{"error": "invalid_session"}')), "invalid_session"),
        Row("tokens-in-500", say(http(500, TOKENS)), "answered 500"),
        Row("echo-500", echo, "answered 500"),
        Row("echo-in-form", echo_in_form, "server_error: POST /token HTTP/1.1"),
        Row("bad-gateway", say(http(502, HTML, kind="text/html")), "answered 502"),
        Row("maintenance", say(http(503, HTML, "Retry-After: 1")), "answered 503"),
        Row("gateway-timeout", say(http(504, b"")), "answered 504"),
        Row("too-many", say(http(429, b"{}", "Retry-After: 1")), "answered 429", touched=False),
        Row("server-error-in-200", say(http(200, b'{"error": "temporarily_unavailable"}')), "temporarily_unavailable"),
        Row("no-content", say(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204"),
        Row("empty", say(http(200, b"")), "0 bytes, which is " + STRANGE),
        Row("no-token", say(http(200, b"{}")), STRANGE),
        Row("null", say(http(200, b"null")), STRANGE),
        Row("two-in-an-array", say(http(200, b"[" + TOKENS + b"," + TOKENS + b"]")), STRANGE),
        Row("half-json", say(http(200, TOKENS[:-1])), STRANGE),
        Row("nan", say(http(200, b'{"access_token": NaN}')), STRANGE),
        Row("not-utf-8", say(http(200, b'{"access_token": "\xff\xfe"}')), STRANGE),
        Row("deep", say(http(200, wide)), STRANGE),
        Row("number-token", say(http(200, b'{"access_token": 17}')), STRANGE),
        Row("empty-token", say(http(200, b'{"access_token": ""}')), STRANGE),
        Row("header-in-token", say(http(200, b'{"access_token": "a\\r\\nX-Admin: 1"}')), STRANGE),
        Row("long-token", say(http(200, b'{"access_token": "' + b"x" * 300_000 + b'"}')), STRANGE),
        Row("odd-refresh-token", say(http(200, TOKENS[:-1] + b', "refresh_token": {"v": 1}}')), STRANGE),
        Row("broken-gzip", say(http(200, gzip.compress(TOKENS)[:20], "Content-Encoding: gzip")), STRANGE),
        Row("brotli", say(http(200, b"\x1b" + TOKENS[9:40], "Content-Encoding: br")), "in br, which is " + STRANGE),
    ]


def conversations() -> list[Row]:
    """Answers that are not whole, not HTTP, or without end."""
    whole, head = http(400, b'{"error": "invalid_grant"}'), b"HTTP/1.1 200 OK\r\n"
    return [
        Row("truncated", cut(whole[:-1]), "connection closed in the middle of the answer"),
        Row("truncated-reset", cut(whole[:-1], reset=True), "connection reset"),
        Row("truncated-chunks", cut(CHUNKED + b"8\r\n" + b"{" * 8 + b"\r\n"), "in the middle of the answer"),
        Row("no-answer", cut(b""), "connection closed before an answer"),
        Row("no-answer-reset", cut(b"", reset=True), "connection reset"),
        Row("smtp", say(b"220 mail.example ESMTP\r\n"), "the answer is not HTTP"),
        Row("http-2", say(b"HTTP/2 200 OK\r\n\r\n"), "not HTTP/1.1"),
        Row("two-lengths", say(head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "not HTTP/1.1"),
        Row("length-below-zero", say(head + b"Content-Length: -1\r\n\r\n"), "not HTTP/1.1"),
        Row("bad-chunks", say(CHUNKED + b"zz\r\n"), "chunked coding is broken"),
        Row("blanks", say(head + b"X: " + b" " * 60_000), "512 blanks in a row"),
        Row("header-lines", say(head + b"a: b\r\n" * 300 + b"\r\n"), "more than 256 headers"),
        Row("header-flood", endless(head, b"X-Flood: " + b"x" * 1000 + b"\r\n"), "headers larger than 64 KiB"),
        Row("continue-flood", endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "headers larger than 64 KiB"),
        Row("chunk-flood", say(CHUNKED + b"1\r\nx\r\n" * 10_001), "more than 10000 pieces"),
        *floods(),
    ]


@functools.cache  # the bomb takes a second
def floods() -> list[Row]:
    """More than anybody should hold in memory."""
    size, bomb = 8 << 20, gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    large = b'{"access_token": "' + b"x" * size + b'"}'
    return [
        Row("eight-mebibytes", say(http(200, large)), "answer larger than 1 MiB"),
        Row("endless-body", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536), "answer larger than 1 MiB"),
        Row("endless-chunks", endless(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"), "answer larger than 1 MiB"),
        Row("gzip-bomb", say(http(200, bomb, "Content-Encoding: gzip")), STRANGE),
    ]


def connections() -> list[Row]:
    """TCP, TLS and proxies: nothing was sent, so nothing can be used up."""

    def row(name: str, fault: Fault, words: str, way: str = "tls") -> Row:
        return Row(name, fault, words, touched=False, way=way)

    plain = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    return [
        row("expired", secured(server_tls("127.0.0.1", expired=True)), "the certificate expired on 20"),
        row("early", secured(server_tls("127.0.0.1", early=True)), "is not valid before 20"),
        row("wrong-host", secured(server_tls("other.example")), "the certificate is for other.example, not 127.0.0.1"),
        row("unknown-ca", secured(server_tls("127.0.0.1", ca=trustme.CA())), "unknown authority; name it with ca_file"),
        row("self-signed", secured(self_signed()), "unknown authority; name it with ca_file"),
        row("too-old", alerting(too_old()), "it speaks nothing newer than TLS 1.1"),
        row("no-cipher", alerting(nothing_in_common()), "no cipher in common, or it wants a certificate (cert_file)"),
        row("sni", alerting(unknowing()), "the server does not know this host name"),
        row("plain-http", after_hello(plain), "it does not speak TLS; is this a port for http://?"),
        row("handshake-closed", after_hello(b""), "TLS handshake: connection closed"),
        row("handshake-rubbish", after_hello(b"\x00" * 64), "TLS handshake: "),
        row("handshake-reset", reset_at_once, "connection reset"),
        row("handshake-stalls", hold, "timed out after 10 s in the TLS handshake"),
        row("connect-403", say(http(403, HTML)), "it refuses to connect to idp.example:443 (403)", "proxy"),
        row("connect-407", say(http(407, HTML)), "write user:password@ in the proxy's URL (407)", "proxy"),
        row("connect-502", say(http(502, HTML)), "it cannot reach idp.example:443 (502)", "proxy"),
        row("connect-portal", say(http(200, HTML)), "it sent data before idp.example:443", "proxy"),
        row("connect-closed", cut(b""), "connection closed before an answer", "proxy"),
        row("connect-stalls", hold, "waiting for proxy", "proxy"),
    ]
