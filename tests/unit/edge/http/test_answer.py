# Answers of HTTP servers that are not whole or against the rules: what is still read, and the limits of what is read.
from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import pytest
import trio

from brokerd.core.ports import AnswerTooLarge, TransportError
from brokerd.edge.http.client import HttpSettings
from brokerd.edge.http.connection import AnswerTimeouts
from tests.unit.edge.http.fixtures import client, failure, get, post
from tests.unit.edge.http.servers import CHUNKED, OK, Peer, Script, answering, serving

ASKS = "; does it speak https?"

PAIR = b'{"access_token": "A1", "refresh_token": "R1"}'

LENGTH = f"Content-Length: {len(PAIR)}\r\n".encode()

HEAD = b"HTTP/1.1 200 OK\r\n"

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
            heard = await http.send(post(server.url, sends_stored=spends))
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
        assert "its headers break the rules" in (await failure(http, post(server.url, sends_stored=True))).reason


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
        heard = await http.send(post(server.url, sends_stored=True))
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
        assert (await failure(http, post(server.url, sends_stored=True))).sent


async def test_a_bomb_costs_no_more_memory_than_an_answer_may() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with serving(answering(HEAD + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)) as server, client() as http:
        tracemalloc.start()
        heard = await http.send(post(server.url, sends_stored=True))
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
        assert (await http.send(post(server.url, sends_stored=True))).body == b"ok"
        assert "timed out" in (await failure(http, post(server.url))).reason
    timeouts = HttpSettings().timeouts(sends_stored=True)
    assert (timeouts.read, timeouts.answer) == (300, 300)
    assert HttpSettings().timeouts(sends_stored=False) == AnswerTimeouts(30, 60, 60)
    assert HttpSettings(answer_timeout=900).timeouts(sends_stored=False).answer == 900


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
                cut = (await http.send(post(server.url, sends_stored=True))).cut
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
            large = await failure(http, get(server.url))
            assert isinstance(large, AnswerTooLarge)
            assert large.reason.endswith("answer larger than 4999 bytes")


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
