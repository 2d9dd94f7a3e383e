# The HTTP client against servers that say what a test tells them to: connections, answers, limits, deadlines.
from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import pytest
import trio

from brokerd import __version__
from brokerd.core.exchange import Request
from brokerd.core.ports import Http, TransportError
from brokerd.edge import dial
from brokerd.edge.connection import Patience, split_url
from brokerd.edge.http import HttpClient, HttpSettings
from tests.edge.http_fixtures import SECRET, StepClock, client, failure, get, post
from tests.edge.http_servers import OK, Peer, Script, always_ok, answering, serving

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# What travels


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


# Connections kept and not kept


async def test_a_connection_is_used_again() -> None:
    async with serving(always_ok) as server, client() as http:
        for _ in range(5):
            await http.send(get(server.url))
        assert len(server.peers) == 1
        assert len(server.requests) == 5


async def test_requests_at_once_have_a_connection_each_and_few_of_them_are_kept() -> None:
    together = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 5:
            together.set()
        await together.wait()
        await peer.say(OK)
        while await peer.request():
            await peer.say(OK)

    async with serving(script) as server, client(max_idle=2) as http:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(http.send, get(server.url))
        await server.until(lambda: len(server.ended) == 4)
        for _ in range(3):
            await http.send(get(server.url))
        assert len(server.peers) == 6


async def test_closing_the_client_closes_what_it_kept_and_it_keeps_nothing_more() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(get(server.url))
        await http.aclose()
        await server.until(lambda: server.ended == [0])
        await http.send(get(server.url))
        await server.until(lambda: server.ended == [0, 1])


async def test_a_connection_that_is_idle_for_too_long_is_closed() -> None:
    clock = StepClock()
    async with serving(always_ok) as server, client(clock=clock) as http:
        await http.send(get(server.url))
        clock.advance(14)
        http.sweep()
        assert server.ended == []
        clock.advance(2)
        http.sweep()
        await server.until(lambda: server.ended == [0])
        await http.send(get(server.url))
        assert len(server.peers) == 2


@pytest.mark.parametrize("stray", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_kept_connection_on_which_something_came_is_not_used(stray: bytes) -> None:
    """An end, or an answer that nobody asked for and that the next request must not take for its own."""
    told, came = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            await told.wait()
            if stray:
                await peer.say(stray)
                came.set()
                await peer.hears_the_end()

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        told.set()
        if stray:
            await came.wait()
        else:
            await server.until(lambda: server.ended == [0])
        assert (await http.send(get(server.url))).status == 200
        assert len(server.peers) == 2


async def test_more_bytes_than_the_answer_end_the_connection() -> None:
    async with serving(answering(OK + OK, OK)) as server, client() as http:
        await http.send(get(server.url))
        await http.send(get(server.url))
        assert len(server.peers) == 2


@pytest.mark.parametrize("answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"1.1", b"1.0")])
async def test_a_connection_that_the_server_will_close_is_not_kept(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(answer)

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        await server.until(lambda: server.ended == [0])


async def test_a_spending_request_has_a_connection_of_its_own() -> None:
    async with serving(always_ok) as server, client() as http:
        await http.send(get(server.url))
        await http.send(post(server.url, spends=True))
        await server.until(lambda: server.ended == [1])
        await http.send(post(server.url, spends=True))
        await http.send(get(server.url))
        assert [len(peer.requests) for peer in server.peers] == [2, 1, 1]
        assert b"connection: close" in server.peers[1].requests[0]


async def test_nothing_is_repeated_when_a_kept_connection_dies_under_a_request() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()

    async with serving(script) as server, client() as http:
        await http.send(get(server.url))
        error = await failure(http, post(server.url))
        assert error.sent
        assert error.reason == f"{server.authority}: connection closed before an answer; does it speak https?"
        assert (len(server.requests), len(server.peers)) == (2, 1)


async def test_origins_do_not_share_connections() -> None:
    async with serving(always_ok) as one, serving(always_ok) as other, client() as http:
        await http.send(get(one.url))
        await http.send(get(other.url))
        await http.send(get(f"http://localhost:{one.port}"))
        assert (len(one.peers), len(other.peers)) == (2, 1)


# Answers that are not whole, or against the rules

ASKS = "; does it speak https?"
PAIR = b'{"access_token": "A1", "refresh_token": "R1"}'
LENGTH = f"Content-Length: {len(PAIR)}\r\n".encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
BY_END = b"Transfer-Encoding: identity\r\n\r\n"
SAFE = {
    "Transfer-Encoding: identity": HEAD + LENGTH + b"Transfer-Encoding: identity\r\n\r\n" + PAIR,
    "identity up to the end": HEAD + b"transfer-encoding:  Identity\r\n\r\n" + PAIR,
    "a blank before a colon": HEAD
    + b"Content-Type : application/json\r\n"
    + LENGTH.replace(b":", b" \t:")
    + b"\r\n"
    + PAIR,
    "a line without a colon": HEAD + b"No colon\r\n" + LENGTH + b"\r\n" + PAIR,
    "a name with a blank": HEAD + b"Set Cookie: x\r\n  and more\r\n" + LENGTH + b"\r\n" + PAIR,
    "a control character": HEAD + b"X-Powered-By: \x07\r\n" + LENGTH + b"\r\n" + PAIR,
    "bare line feeds": (HEAD + LENGTH + b"\r\n").replace(b"\r", b"") + PAIR,
    "after a 1xx": b"HTTP/1.1 103 Early Hints\r\nNo colon\r\n\r\n" + HEAD + b"No colon\r\n" + LENGTH + b"\r\n" + PAIR,
    "gzip": HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(PAIR),
    "gzip by another name": HEAD + b"Content-Encoding: X-GZIP\r\n\r\n" + gzip.compress(PAIR),
    "gzip that nothing names": HEAD + b"\r\n" + gzip.compress(PAIR),
    "deflate": HEAD + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(PAIR),
    "deflate without its head": HEAD + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(PAIR)[2:-4],
}


@pytest.mark.parametrize("form", SAFE)
async def test_what_is_safe_to_read_is_read(form: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(SAFE[form])

    for spends in (False, True):
        async with serving(script) as server, client() as http:
            heard = await http.send(post(server.url, spends=spends))
            assert (heard.status, heard.body, heard.cut) == (200, PAIR, None)
            assert heard.header("content-encoding") is None


async def test_a_connection_whose_heads_are_against_the_rules_is_not_kept() -> None:
    async with serving(answering(SAFE["a line without a colon"])) as server, client() as http:
        await http.send(get(server.url))
        await server.until(lambda: server.ended == [0])


@pytest.mark.parametrize(
    "head",
    [b"Content-Length : 2, 3\r\n", b"Content-Length 5\r\n", b"Content-Length: 5\r\nContent-Length : 6\r\n"],
)
async def test_where_a_body_ends_is_never_guessed(head: bytes) -> None:
    async with serving(answering(HEAD + head + b"\r\n" + PAIR)) as server, client() as http:
        assert "its headers break the rules" in (await failure(http, post(server.url, spends=True))).reason


HALF = gzip.compress(PAIR, 0)[:-20]
CUT = {
    "a length that is too long": (HEAD + b"Content-Length: 999\r\n\r\n" + PAIR, PAIR),
    "a last chunk that is missing": (CHUNKED + b"%x\r\n" % len(PAIR) + PAIR + b"\r\n", PAIR),
    "a chunk that breaks off": (CHUNKED + b"ff\r\n" + PAIR, PAIR),
    "chunks that turn to rubbish": (CHUNKED + b"%x\r\n" % len(PAIR) + PAIR + b"\r\nzz\r\n", PAIR),
    "half of it": (HEAD + LENGTH + b"\r\n" + PAIR[:9], PAIR[:9]),
    "half of what was compressed": (HEAD + b"Content-Length: %d\r\n\r\n" % len(HALF) + HALF, PAIR[:-12]),
    "only its head": (HEAD + LENGTH + b"\r\n", b""),
}


WHY = {"chunks that turn to rubbish": "chunked coding", "half of what was compressed": "compressed body breaks off"}


@pytest.mark.parametrize("ends", ["closed", "stays"])
@pytest.mark.parametrize("form", CUT)
async def test_what_came_of_a_success_that_may_hold_tokens_is_kept(form: str, ends: str) -> None:
    """Who reads it knows by `cut` that it is not whole."""
    said, came = CUT[form]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(said)
        if ends == "stays":
            await peer.hears_the_end()

    async with serving(script) as server, client(answer_timeout=0.2) as http:
        heard = await http.send(post(server.url, spends=True))
        assert heard.body == came
        assert heard.cut is not None
        assert heard.cut.startswith(f"{server.authority}: ")
        ended = "timed out" if ends == "stays" else "connection closed"
        assert WHY.get(form, ended) in heard.cut
        assert (await failure(http, post(server.url))).sent  # without a stored token in it, it is only asked again


@pytest.mark.parametrize("status", [b"302 Found", b"400 Bad Request", b"500 Oops"])
async def test_a_refusal_that_is_not_whole_is_no_refusal(status: bytes) -> None:
    said = b"HTTP/1.1 " + status + b'\r\nContent-Length: 99\r\n\r\n{"error": "invalid_grant"}'
    async with serving(answering(said)) as server, client(answer_timeout=0.2) as http:
        assert (await failure(http, post(server.url, spends=True))).sent


async def test_a_bomb_costs_no_more_memory_than_an_answer_may() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with serving(answering(HEAD + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)) as server, client() as http:
        tracemalloc.start()
        heard = await http.send(post(server.url, spends=True))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert heard.body == bomb
        assert peak < 8 << 20


async def test_an_answer_to_a_request_that_spends_may_take_minutes() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await trio.sleep(0.3)
        await peer.say(OK)

    async with serving(script) as server, client(read_timeout=0.1, total_timeout=0.2) as http:
        assert (await http.send(post(server.url, spends=True))).body == b"ok"
        assert "timed out" in (await failure(http, post(server.url))).reason
    patience = HttpSettings().patience(spends=True)
    assert (patience.read, patience.answer) == (300, 300)
    assert HttpSettings().patience(spends=False) == Patience(30, 60, 60)
    assert HttpSettings(answer_timeout=900).patience(spends=False).answer == 900


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "answer",
    [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK],
    ids=["length", "chunked", "continue"],
)
async def test_an_answer_that_ends_at_any_byte_is_never_taken_for_a_whole_one(answer: bytes, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer[: peer.number])
        if reset:
            peer.reset()

    async with serving(script) as server, client() as http:
        for length in range(len(answer)):
            sent = True
            try:
                cut = (await http.send(post(server.url, spends=True))).cut
            except TransportError as error:
                cut, sent = error.reason, error.sent
            assert sent
            closed = "connection reset" if reset else "connection closed"
            where = "in the middle of the answer" if length else f"before an answer{ASKS}"
            between = answer.startswith(b"HTTP/1.1 100") and length == answer.index(b"HTTP", 1)
            assert between or cut in (
                f"{server.authority}: {closed} {where}",
                f"{server.authority}: connection reset before an answer{ASKS}",  # RST overtakes what came before it
            )
        assert len(server.requests) == len(answer)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"220 mail.example ESMTP\r\n", "the answer is not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "the answer is not HTTP; does it speak https?"),
        (b"\r\n\r\n" + OK, "the answer is not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1.1, or its headers break the rules"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not HTTP/1.1, or its headers break the rules"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n", "not HTTP/1.1, or its headers break the rules"),
        (OK.replace(b": 2", b": 2, 3"), "not HTTP/1.1, or its headers break the rules"),
        (OK.replace(b": 2", b": -2"), "not HTTP/1.1, or its headers break the rules"),
        (CHUNKED.replace(b"chunked", b"gzip, chunked"), "not HTTP/1.1, or its headers break the rules"),
        (CHUNKED + b"1\r\nx\r\n" * 10_001, "more than 10000 pieces in the answer"),
        (CHUNKED + b"zz\r\n", "the answer's chunked coding is broken"),
        (CHUNKED + b"2\r\nokXX", "the answer's chunked coding is broken"),
        (CHUNKED + b"1;" + b"x" * 5000, "a chunk header or trailer is too long"),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 1000, "a chunk header or trailer is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n", "more than 256 headers"),
    ],
)
async def test_an_answer_against_the_rules_is_an_error(answer: bytes, reason: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        await peer.hears_the_end()

    async with serving(script) as server, client() as http:
        error = await failure(http, get(server.url))
        assert error.sent
        assert error.reason.endswith(reason)
        await server.until(lambda: server.ended == [0])


def endless(start: bytes, more: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        while True:
            await peer.say(more)

    return script


@pytest.mark.parametrize(
    ("start", "more", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"x" * 1000 + b"\r\n", "headers larger than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 1000, "headers larger than 64 KiB"),
        (b"HTTP/1.1 200 ", b"OK" * 500, "headers larger than 64 KiB"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n", "headers larger than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 9999, "answer larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 9999, "answer larger than 1 MiB"),
        (CHUNKED, b"270f\r\n" + b"x" * 9999 + b"\r\n", "answer larger than 1 MiB"),
        (CHUNKED, b"1;" + b"x" * 1000 + b"\r\nx\r\n", "answer larger than 1 MiB"),
    ],
    ids=["headers", "header", "status", "1xx", "body", "length", "chunks", "extensions"],
)
async def test_an_endless_answer_ends_at_its_limit(start: bytes, more: bytes, reason: str) -> None:
    async with serving(endless(start, more)) as server, client() as http:
        error = await failure(http, get(server.url))
        assert error.sent
        assert error.reason == f"{server.authority}: {reason}"
        await server.until(lambda: server.ended == [0])


async def test_limits_are_met_to_the_byte() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with serving(answering(head + b"x" * 5000)) as server:
        async with client(max_headers=len(head), max_answer=5000) as http:
            assert len((await http.send(get(server.url))).body) == 5000
        async with client(max_headers=len(head) - 1) as http:
            assert (await failure(http, get(server.url))).reason.endswith(f"headers larger than {len(head) - 1} bytes")
        async with client(max_answer=4999) as http:
            assert (await failure(http, get(server.url))).reason.endswith("answer larger than 4999 bytes")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX:" + b" \t" * 30_000 + b"\x0b\r\n\r\n",
        CHUNKED + b"1;" + b" " * 60_000 + b"\n\r\n",
        CHUNKED + b"0\r\nX:" + b" " * 60_000 + b"\x0b\r\n\r\n",
        b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 200 OK\r\nX:" + b" " * 60_000 + b"\x0b\r\n\r\n",
    ],
    ids=["header", "chunk", "trailer", "after 1xx"],
)
async def test_blanks_do_not_stop_the_world(answer: bytes) -> None:
    """h11 takes 35 s, in which nothing else runs, to refuse the first of these."""
    async with serving(answering(answer)) as server, client() as http:
        before = time.process_time()
        assert (await failure(http, get(server.url))).sent
        assert time.process_time() - before < 2


async def test_blanks_in_a_body_are_only_blanks() -> None:
    body = b" " * 10_000
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + body)) as server,
        client() as http,
    ):
        assert (await http.send(get(server.url))).body == body


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
        (f"https://user:{SECRET}@idp.example/", "idp.example: the URL holds a user or password"),
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
        ((("Transfer-Encoding", "chunked"),), "header transfer-encoding is the HTTP client's own"),
        ((("HOST", "evil.example"),), "header host is the HTTP client's own"),
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
    assert len({id(each._opener._trust) for each in clients}) == 1
