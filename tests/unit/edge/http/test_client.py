# The HTTP client against scripted servers: what travels, deadlines, and what is refused before anything is sent.
from __future__ import annotations

import time

import pytest
import trio

from brokerd import __version__
from brokerd.core.exchange.steps import Request
from brokerd.core.ports import Http
from brokerd.edge.http import dial
from brokerd.edge.http.client import HttpClient, HttpSettings
from brokerd.edge.http.connection import split_url
from tests.unit.edge.http.fixtures import SECRET, StepClock, client, failure, get, post
from tests.unit.edge.http.servers import CHUNKED, OK, Peer, always_ok, answering, serving


async def test_a_request_arrives_as_it_was_meant() -> None:
    async with serving(always_ok) as server, client() as http:
        port: Http = http
        headers = (("Content-Type", "text/plain"), ("X-Key", "grün"))
        response = await port.send(post(f"{server.url}/token?key=1&b=%20#fragment", b"body", headers=headers))
    assert server.requests == [
        (
            f"POST /token?key=1&b=%20 HTTP/1.1\r\nhost: {server.authority}\r\nuser-agent: brokerd/{__version__}\r\n"
            "accept-encoding: identity\r\nContent-Type: text/plain\r\nX-Key: grün\r\ncontent-length: 4\r\n\r\nbody"
        ).encode()
    ]
    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize(
    ("method", "body", "expected"), [("GET", b"", None), ("POST", b"", b"0"), ("PUT", b"abc", b"3")]
)
async def test_a_length_is_said_where_a_body_belongs(method: str, body: bytes, expected: bytes | None) -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(Request(method, server.url, body=body))
    found = [line for line in server.requests[0].split(b"\r\n") if line.startswith(b"content-length")]
    assert found == ([b"content-length: " + expected] if expected else [])


async def test_a_length_and_a_user_agent_that_are_given_are_not_doubled() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(post(server.url, b"abc", headers=(("Content-Length", "3"), ("User-Agent", "other"))))
    assert server.requests[0].lower().count(b"content-length") == 1
    assert server.requests[0].lower().count(b"user-agent") == 1


async def test_the_host_header_leaves_the_usual_port_out_and_brackets_in() -> None:
    def host(url: str) -> str:
        return split_url(url)[0].host_header

    assert host("https://idp.example/x") == "idp.example"
    assert host("https://IDP.example:443/x") == "idp.example"
    assert host("https://idp.example:80/x") == "idp.example:80"
    assert host("http://[::1]/x") == "[::1]"
    assert host("http://[::1]:8080/x") == "[::1]:8080"


async def test_ipv6_works() -> None:
    async with serving(always_ok, host="::1") as server, client() as http:
        assert (await http.send(get(server.url))).status == 200
    assert f"host: [::1]:{server.port}\r\n".encode() in server.requests[0]


async def test_an_answer_is_taken_as_it_comes() -> None:
    answer = (
        b"HTTP/1.1 401 \r\nX-Twice: a\r\nx-twice: b\r\nX-Name: J\xf6rg\r\nFolded: a\r\n  b\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\xff"
    )
    async with serving(answering(answer)) as server, client() as http:
        response = await http.send(get(server.url))
    assert response.status == 401
    assert response.headers[:4] == (("x-twice", "a"), ("x-twice", "b"), ("x-name", "Jörg"), ("folded", "a b"))
    assert response.body == b"\x1f\x8b\x00\xff"


async def test_both_times_are_read_around_the_exchange() -> None:
    clock = StepClock()
    sent_before = clock.now().boot

    async def slow(peer: Peer) -> None:
        await peer.request()
        clock.advance(5)
        await peer.say(OK)

    async with serving(slow) as server, client(clock=clock) as http:
        response = await http.send(get(server.url))
    assert sent_before < response.sent_at.boot < sent_before + 1
    assert 5 < response.at.boot - response.sent_at.boot < 6


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with serving(always_ok) as other:
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(answering(answer)) as server, client() as http:
            assert (await http.send(get(server.url))).status == status
        assert other.peers == []


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (CHUNKED + b"2\r\nok\r\n1;ext=1\r\n!\r\n0\r\nTrailer: x\r\n\r\n", b"ok!"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
    ],
)
async def test_every_framing_of_a_body_is_understood(answer: bytes, body: bytes) -> None:
    async with serving(answering(answer)) as server, client() as http:
        assert (await http.send(get(server.url))).body == body


async def test_an_answer_in_single_bytes_is_understood() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in CHUNKED + b"2\r\nok\r\n0\r\n\r\n":
            await peer.say(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with serving(script) as server, client() as http:
        assert (await http.send(get(server.url))).body == b"ok"


BY_END = b"Transfer-Encoding: identity\r\n\r\n"


# Deadlines
async def test_a_server_that_says_nothing_meets_the_read_timeout() -> None:
    async with serving(Peer.hears_the_end) as server, client(read_timeout=0.05) as http:
        error = await failure(http, get(server.url))
        assert error.sent
        assert error.reason == f"{server.authority}: timed out after 0.05 s waiting for an answer"
        await server.until(lambda: server.ended == [0])


async def test_a_server_that_drips_meets_the_total_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            await peer.say(b"x")
            await trio.sleep(0.01)

    async with serving(script) as server, client(read_timeout=0.1, total_timeout=0.2) as http:
        error = await failure(http, get(server.url))
        assert error.sent
        assert error.reason == f"{server.authority}: timed out after 0.2 s waiting for an answer"
        await server.until(lambda: server.ended == [0])


async def test_a_server_that_does_not_read_meets_the_timeout_too() -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep_forever()

    async with serving(script) as server, client(read_timeout=0.05) as http:
        error = await failure(http, post(server.url, b"x" * 20_000_000))
        assert error.sent
        assert error.reason == f"{server.authority}: timed out after 0.05 s sending the request"


async def test_a_cancelled_request_closes_its_connection() -> None:
    async with serving(Peer.hears_the_end) as server, client() as http:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.send, get(server.url))
                await server.until(lambda: len(server.peers) == 1)
                scope.cancel()
        assert scope.cancelled_caught
        await server.until(lambda: server.ended == [0])


async def test_a_request_cancelled_while_it_looks_at_a_kept_connection_closes_that() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(get(server.url))
        with trio.CancelScope() as scope:
            scope.cancel()
            await http.send(get(server.url))
        await server.until(lambda: server.ended == [0])


# What is refused before anything is sent
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://idp.example/", "the URL is broken: expected https://host/path, in ASCII"),
        ("idp.example/token", "the URL is broken: expected https://host/path, in ASCII"),
        ("https:///token", "the URL is broken: expected https://host/path, in ASCII"),
        ("https://bücher.example/", "the URL is broken: expected https://host/path, in ASCII"),
        ("https://idp.example:0/", "the URL is broken: expected https://host/path, in ASCII"),
        (f"https://idp.example:{SECRET}/", "the URL is broken: expected https://host/path"),
        ("https://[::1/", "the URL is broken: expected https://host/path"),
        (f"https://{'a' * 300}/", "the URL is broken: expected https://host/path, in ASCII"),
        (f"https://user:{SECRET}@idp.example/", "idp.example: the URL holds a user or a password"),
        (f"https://idp.example/?key={SECRET} x", "idp.example:443: the URL has characters"),
        (f"https://idp.example/?key={SECRET}\n", "idp.example:443: the URL has characters"),
        (f"https://idp.example/?key={SECRET}ü", "idp.example:443: the URL has characters"),
    ],
)
async def test_a_url_that_cannot_be_asked_is_refused_without_being_shown(url: str, reason: str) -> None:
    async with client() as http:
        error = await failure(http, get(url))
    assert error.reason.startswith(reason)
    assert not error.sent


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((("X-Key", f"{SECRET}\n"),), "header X-Key holds characters that HTTP cannot carry"),
        ((("X-Key", f"{SECRET}\r\nHost: evil"),), "header X-Key holds characters that HTTP cannot carry"),
        ((("X-Key", f" {SECRET}"),), "header X-Key holds characters that HTTP cannot carry"),
        ((("X-Key", f"\udcff{SECRET}"),), "header X-Key holds characters that HTTP cannot carry"),
        (((f"X\n{SECRET}", "x"),), "a header's name holds characters"),
        (((f"X {SECRET}", "x"),), "the request breaks HTTP's rules: a header's name, or the method"),
        ((("Content-Length", "99"),), "the request breaks HTTP's rules: is its Content-Length right?"),
        ((("Transfer-Encoding", "chunked"),), "header transfer-encoding is set by the HTTP client"),
        ((("HOST", "evil.example"),), "header host is set by the HTTP client"),
    ],
)
async def test_a_header_that_http_cannot_carry_is_refused(headers: tuple[tuple[str, str], ...], reason: str) -> None:
    async with serving(always_ok) as server, client() as http:
        error = await failure(http, post(server.url, headers=headers))
        assert error.reason.startswith(f"{server.authority}: {reason}")
        assert not error.sent
        assert server.requests == []


async def test_a_method_that_http_does_not_know_is_refused() -> None:
    async with client() as http:
        assert not (await failure(http, Request("GET /", "https://idp.example/"))).sent


async def test_nothing_of_a_request_shows_in_what_the_peer_causes() -> None:
    """h11's own errors quote what came, and a provider may echo what it was sent."""

    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 OK " + await peer.request())

    async with serving(script) as server, client() as http:
        headers = (("Authorization", f"Bearer {SECRET}"),)
        for _ in range(3):
            await failure(http, post(f"{server.url}/{SECRET}?key={SECRET}", SECRET.encode(), headers=headers))


async def test_plain_http_to_another_machine_is_refused_before_a_byte_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "is_loopback", lambda address: address == "::1")
    async with serving(always_ok) as server, client() as http:
        error = await failure(http, post(f"http://localhost:{server.port}"))
        assert not error.sent
        assert error.reason == (
            f"localhost:{server.port}: plain http:// goes to loopback addresses only; "
            "use https://, or set insecure_http = true"
        )
        await server.until(lambda: server.ended == [0])
        assert server.requests == []
        async with client(insecure_http=True) as careless:
            assert (await careless.send(post(server.url))).status == 200


async def test_bytes_that_the_kernel_refused_were_not_sent() -> None:
    async def script(peer: Peer) -> None:
        peer.reset()

    async with serving(script) as server:
        endpoint = dial.Endpoint("127.0.0.1", server.port)
        wire = await dial.connect(await dial.Resolver().addresses(endpoint), endpoint)
        with pytest.raises(trio.BrokenResourceError):
            await wire.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await wire.send_all(b"request")
        assert wire.taken == 0
        wire.close()


async def test_many_clients_are_cheap() -> None:
    clock = StepClock()
    before = time.process_time()
    clients = [HttpClient(HttpSettings(), clock, environ={}) for _ in range(1000)]
    assert time.process_time() - before < 1
    assert len({id(each._opener._tls_context) for each in clients}) == 1
