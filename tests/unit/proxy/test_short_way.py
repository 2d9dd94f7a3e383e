# The short way of a request gives the very answers of the long way, and hands over what is not so simple: whatever the
# upstream does, and whenever. A head that comes in two pieces goes the long way.
import math
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from brokerd_client import Gone, Revoked, Token
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd.core.access.policy import Selector
from brokerd.core.http.forwarding import Allowed, Upstream, request_lines
from brokerd.core.http.heads import RequestHead, read_request
from brokerd.proxy import streams
from brokerd.proxy.clients import ProxyClient
from brokerd.proxy.running import RunningProxy
from brokerd.proxy.short_requests import REMEMBERED, ShortRequests
from brokerd.proxy.short_way import LARGEST
from brokerd.proxy.streams import SIZE
from tests.unit.proxy.conftest import WITHIN, Setup, proxied

GET = b"GET /things?a=b HTTP/1.1\r\nHost: proxy\r\nX-More: 1\r\n\r\n"
HEAD = b"HEAD /things HTTP/1.1\r\nHost: proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
LONG, HANDED = "long", "handed over"
SHORT: None = None
NOBODY = 4_294_967_294


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How requests were answered that did not go the short way to their end."""
    taken, answer = list[str](), ProxyClient._answer

    async def noted(self: ProxyClient, incoming: Any, head: RequestHead, handed: Any = None) -> bool:
        taken.append(LONG if handed is None else HANDED)
        return await answer(self, incoming, head, handed)

    monkeypatch.setattr(ProxyClient, "_answer", noted)
    return taken


ANSWERS = {
    "with a length": (GET, OK + b"Content-Length: 3\r\nX-A: 1\r\nx-a: 2 \r\nDate: today\r\n\r\nabc", SHORT),
    "without a body": (GET, EMPTY, SHORT),
    "chunked": (GET, OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n", SHORT),
    "chunked, empty": (GET, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", SHORT),
    "no content": (GET, b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n", SHORT),
    "not modified": (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", SHORT),
    "to HEAD": (HEAD, OK + b"Content-Length: 77\r\n\r\n", SHORT),
    "to HEAD, chunked": (HEAD, OK + b"Transfer-Encoding: chunked\r\n\r\n", SHORT),
    "to HEAD, no length": (HEAD, OK + b"X: y\r\n\r\n", SHORT),
    "a redirect": (GET, b"HTTP/1.1 302 F\r\nLocation: /base/x\r\nContent-Length: 1\r\n\r\nx", SHORT),
    "an error": (GET, b"HTTP/1.1 503 No\r\nRetry-After: 3\r\nContent-Length: 1\r\n\r\nx", SHORT),
    "headers of the connection": (
        GET,
        OK + b"Connection: X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nTrailer: x\r\nContent-Length: 1\r\n\r\nx",
        SHORT,
    ),
    "the upstream closes": (GET, OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", SHORT),
    "HTTP/1.0": (GET, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", SHORT),
    "many chunks": (GET, OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2_000 + b"0\r\n\r\n", HANDED),
    "larger than the buffer": (GET, OK + b"Content-Length: %d\r\n\r\n" % (2 * SIZE) + b"x" * 2 * SIZE, HANDED),
    "early hints": (GET, b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n" + EMPTY, HANDED),
    "an answer behind the answer": (GET, EMPTY * 2, HANDED),
    "two lengths": (GET, OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", HANDED),
    "a folded line": (GET, OK + b"Content-Length: 1\r\nX: a\r\n b\r\n\r\nx", HANDED),
    "no HTTP": (GET, b"SSH-2.0-x\r\n\r\n", HANDED),
    "an upgrade that nobody wanted": (GET, b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", HANDED),
    "a bad chunk": (GET, OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", HANDED),
}


async def both_ways(setup: Setup, request: bytes, answer: bytes) -> list[bytes]:
    """What the client gets on the long way and on the short way."""
    found = []
    for pieces in (2, 1):
        setup.upstream.answer = EMPTY
        async with setup.client() as client:
            assert (await client.ask(GET, pieces=2)).startswith(OK)  # it leaves a connection that is kept
            setup.upstream.answer = answer
            found.append(await client.ask(request, pieces=pieces))
    return found


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_short_way_gives_the_answer_of_the_long_way(name: str, setup: Setup, ways: list[str]) -> None:
    request, answer, way = ANSWERS[name]
    long, short = await both_ways(setup, request, answer)
    assert long == short
    assert bool(long) == (name != "a bad chunk")
    assert ways == [LONG, LONG, LONG, *([way] if way else [])]
    assert setup.upstream.heads[1] == setup.upstream.heads[3]


NAMES = st.sampled_from([b"X-A", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Date", b"Upgrade", b"X-B"])
VALUES = st.one_of(
    st.sampled_from([b"0", b"5", b"chunked", b"close", b"X-A", b"keep-alive, X-B", b"h2c", b" 5 ", b"x"]),
    st.binary(max_size=5),
)
BODIES = st.one_of(st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"hello again"]), st.binary(max_size=9))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([b"200 OK", b"204 N", b"304 N", b"100 C", b"401 U", b"302 F", b"999 X", b"20 X"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    BODIES,
    st.sampled_from([GET, HEAD]),
)
def test_any_answer_comes_back_as_on_the_long_way(
    status: bytes, headers: list[tuple[bytes, bytes]], body: bytes, request: bytes
) -> None:
    lines = b"".join(b"%b: %b\r\n" % each for each in headers)
    answer = b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n" + body

    async def compare() -> None:
        async def plays(stream: trio.SocketStream, _: bytes) -> None:
            await stream.send_all(setup.upstream.answer)
            if setup.upstream.answer != EMPTY:
                await stream.aclose()

        with tempfile.TemporaryDirectory() as folder:
            async with proxied(Path(folder)) as setup:
                setup.upstream.plays = plays
                long, short = await both_ways(setup, request, answer)
                assert long == short

    trio.run(compare)


# What happens while a request is under way.


async def test_an_answer_that_comes_late_and_in_pieces_is_handed_over(setup: Setup, ways: list[str]) -> None:
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        goes_on = trio.Event()

        async def plays(stream: trio.SocketStream, _: bytes) -> None:
            await stream.send_all(OK + b"Content-Le")
            while HANDED not in ways:
                await trio.lowlevel.checkpoint()
            await stream.send_all(b"ngth: 2\r\n\r\n")
            await stream.send_all(b"ok")
            goes_on.set()

        setup.upstream.plays = plays
        assert await client.ask(GET) == OK + b"Content-Length: 2\r\n\r\nok"
        assert goes_on.is_set()
        setup.upstream.plays = None
        await client.ask(GET)
        assert ways == [LONG, HANDED]


async def test_an_upstream_that_is_silent_is_handed_over_and_given_up(tmp_path: Path, ways: list[str]) -> None:
    async with proxied(tmp_path, timeout="2") as setup, setup.client() as client:
        await client.ask(GET, pieces=2)

        async def plays(stream: trio.SocketStream, _: bytes) -> None:
            await trio.sleep_forever()

        setup.upstream.plays = plays
        began = trio.current_time()
        found = await client.ask(GET)
        assert found.startswith(b"HTTP/1.1 504 ")
        assert trio.current_time() - began >= 2
        assert ways == [LONG, HANDED]


async def test_an_upstream_without_patience_gets_no_request_the_short_way(tmp_path: Path, ways: list[str]) -> None:
    async with proxied(tmp_path, timeout="0.5") as setup, setup.client() as client:
        for _ in range(3):
            await client.ask(GET)
        assert ways == [LONG, LONG, LONG]


POST = b"POST /things HTTP/1.1\r\nHost: proxy\r\nContent-Length: 5\r\n\r\nhello"


async def test_a_short_body_goes_with_its_request(setup: Setup, ways: list[str]) -> None:
    setup.upstream.body = 5
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        for pieces in (2, 1, 1):
            assert await client.ask(POST, pieces=pieces) == setup.upstream.answer
        assert ways == [LONG, LONG]
        assert setup.upstream.heads[1] == setup.upstream.heads[2] == setup.upstream.heads[3]
        assert b"Content-Length: 5\r\n" in setup.upstream.heads[3]
        assert setup.upstream.bodies[1:] == [b"hello"] * 3


async def test_a_short_body_is_repeated_with_another_token(setup: Setup, ways: list[str]) -> None:
    async def replaced(*_: object) -> Token:
        return Token("n3w-token", "Bearer", None, "x")

    async def plays(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(EMPTY if b"n3w-token" in head else b"HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n")

    setup.tokens.replaced = replaced  # type: ignore[method-assign]
    setup.upstream.body = 5
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        setup.upstream.plays = plays
        assert await client.ask(POST) == EMPTY
        assert ways == [LONG, HANDED]
        assert setup.upstream.bodies[1:] == [b"hello"] * 2


async def test_a_request_that_must_not_be_repeated_is_not(setup: Setup, ways: list[str]) -> None:
    async def plays(stream: trio.SocketStream, _: bytes) -> None:
        await stream.aclose()

    setup.upstream.body = 5
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        setup.upstream.plays = plays
        assert (await client.ask(POST)).startswith(b"HTTP/1.1 502 ")
        assert ways == [LONG, HANDED]
        assert len(setup.upstream.heads) == 2


async def test_a_client_that_leaves_ends_its_request(setup: Setup, ways: list[str]) -> None:
    ended = trio.Event()

    async def plays(stream: trio.SocketStream, _: bytes) -> None:
        assert await stream.receive_some(1) == b""
        ended.set()

    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        setup.upstream.plays = plays
        await client.stream.send_all(GET)
        while len(setup.upstream.heads) < 2:
            await trio.lowlevel.checkpoint()
        await client.stream.aclose()
        with trio.fail_after(WITHIN):
            await ended.wait()
    assert ways == [LONG, HANDED]


async def test_a_kept_connection_that_has_died_is_replaced(setup: Setup, ways: list[str]) -> None:
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        died = False

        async def plays(stream: trio.SocketStream, _: bytes) -> None:
            nonlocal died
            if not died:
                died = True
                await stream.aclose()
            else:
                await stream.send_all(EMPTY)

        setup.upstream.plays = plays
        assert await client.ask(GET) == EMPTY
        assert ways == [LONG, HANDED]
        assert setup.upstream.connections == 2


async def test_a_refused_token_is_replaced_on_the_long_way(setup: Setup, ways: list[str]) -> None:
    new = Token("n3w-token", "Bearer", None, "x")

    async def replaced(*_: object) -> Token:
        setup.tokens._tell(setup.settings.source, new)
        return new

    setup.tokens.replaced = replaced  # type: ignore[method-assign]
    async with setup.client() as client:
        await client.ask(GET, pieces=2)

        async def plays(stream: trio.SocketStream, head: bytes) -> None:
            answer = EMPTY if b"n3w-token" in head else b"HTTP/1.1 401 U\r\nContent-Length: 1\r\n\r\nx"
            await stream.send_all(answer)

        setup.upstream.plays = plays
        assert await client.ask(GET) == EMPTY
        assert await client.ask(GET) == EMPTY
        assert ways == [LONG, HANDED]
        assert [b"n3w-token" in head for head in setup.upstream.heads] == [False, False, True, True]


async def test_requests_that_come_together_are_answered_one_after_the_other(setup: Setup) -> None:
    async with setup.client() as client:
        await client.ask(GET)
        await client.stream.send_all(GET)
        while len(setup.upstream.heads) < 2:
            await trio.lowlevel.checkpoint()
        await client.stream.send_all(GET + GET)
        found = b""
        with trio.fail_after(WITHIN):
            while found.count(b"\r\n\r\nok") < 3:
                found += await client.stream.receive_some(65_536)
    assert found == setup.upstream.answer * 3


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_client_that_ends_its_sending_gets_its_answer_and_the_end(setup: Setup, pieces: int) -> None:
    async with setup.client() as client:
        await client.ask(GET)
        await client.stream.send_all(GET[:5] if pieces == 2 else GET)
        if pieces == 2:
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.send_all(GET[5:])
        await client.stream.send_eof()
        assert await client.answer(math.inf) == setup.upstream.answer


async def test_two_requests_and_the_end_that_come_at_once_are_all_seen(setup: Setup) -> None:
    long = b"GET /?" + b"x" * (LARGEST - len(GET)) + b" HTTP/1.1\r\nHost: proxy\r\n\r\n"
    fits = long.replace(b"/?", b"/?" + b"y" * (LARGEST - len(long)))
    assert len(fits) == LARGEST
    async with setup.client() as client:
        await client.ask(GET)
        await client.stream.send_all(fits + GET)
        await client.stream.send_eof()
        assert await client.answer(math.inf) == setup.upstream.answer * 2


async def test_an_answer_that_the_client_does_not_read_waits_for_it(setup: Setup, ways: list[str]) -> None:
    body = b"x" * 30_000
    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        client.proxied.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        setup.upstream.answer = OK + b"Content-Length: 30000\r\n\r\n" + body
        for _ in range(3):
            assert (await client.ask(GET)).endswith(body)
        assert ways == [LONG]


async def test_where_many_do_not_read_their_answers_little_is_held_for_each(
    setup: Setup, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MANY", 1)
    async with setup.client() as other, setup.client() as client:
        await other.ask(GET, pieces=2)
        client.proxied.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        setup.upstream.answer = OK + b"Content-Length: 30000\r\n\r\n" + b"x" * 30_000
        await client.stream.send_all(GET)
        with trio.fail_after(WITHIN):
            while not streams._lent:
                await trio.lowlevel.checkpoint()
        assert (await other.ask(GET)).endswith(b"x" * 30_000)
        assert ways == [LONG, HANDED]
    assert not streams._lent


async def test_a_request_that_ends_while_the_proxy_stops_is_answered(setup: Setup, ways: list[str]) -> None:
    stops = trio.Event()

    async def plays(stream: trio.SocketStream, _: bytes) -> None:
        await stops.wait()
        await stream.send_all(EMPTY)

    async with setup.client() as client:
        await client.ask(GET, pieces=2)
        setup.upstream.plays = plays
        await client.stream.send_all(GET)
        while len(setup.upstream.heads) < 2:
            await trio.lowlevel.checkpoint()
        setup.running.runs = False
        client.proxied.end_if_idle()
        stops.set()
        assert await client.answer(1) == EMPTY
        assert await client.stream.receive_some(1) == b""
    assert ways == [LONG, HANDED]


async def test_bytes_that_the_upstream_sent_unasked_are_no_answer(setup: Setup) -> None:
    async with setup.client() as client:
        setup.upstream.answer = EMPTY
        kept = trio.Event()

        async def plays(stream: trio.SocketStream, _: bytes) -> None:
            await stream.send_all(EMPTY)
            await kept.wait()
            await stream.send_all(OK + b"Content-Length: 4\r\n\r\nevil")

        setup.upstream.plays = plays
        await client.ask(GET, pieces=2)
        (wire, _), *_ = setup.running.upstreams._kept
        kept.set()
        await trio.lowlevel.wait_readable(wire.sock)
        setup.upstream.plays = None
        assert await client.ask(GET) == EMPTY


# Who may use it, and with which token, is asked for each request.


async def test_a_rule_that_was_taken_away_holds_for_the_next_request(setup: Setup) -> None:
    async with setup.client() as client:
        await client.ask(GET)
        assert await client.ask(GET) == setup.upstream.answer
        settings = replace(setup.settings, callers=(Selector(uid=NOBODY),))
        client.proxied.proxy = RunningProxy(settings, setup.tokens, setup.usage, setup.running.upstreams)
        assert (await client.ask(GET)).startswith(b"HTTP/1.1 403 ")


async def test_a_process_that_inherits_the_connection_gets_nothing(setup: Setup, ways: list[str]) -> None:
    async with setup.client() as client:
        await client.ask(GET)
        assert await client.ask(GET) == setup.upstream.answer
        child = "import os, sys; os.write(int(sys.argv[1]), sys.argv[2].encode())"
        inherited = client.stream.socket.fileno()
        command = [sys.executable, "-c", child, str(inherited), GET.decode()]
        await trio.run_process(command, pass_fds=[inherited])
        with trio.fail_after(WITHIN):
            assert await client.stream.receive_some(65_536) == b""
        assert len(setup.upstream.heads) == 2


@pytest.mark.parametrize("line", ["Host: evil.example", "Host: 127.0.0.1:8081\r\nOrigin: null", "Host: localhost"])
async def test_a_page_of_another_site_is_refused_each_time(line: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, socket=None, listen='"127.0.0.1:8081"') as setup:
        requests = setup.running.requests
        assert requests is not None
        good = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n"
        for _ in range(2):
            assert requests.find(good, "Authorization") is not None
            assert requests.find(f"GET / HTTP/1.1\r\n{line}\r\n\r\n".encode(), "Authorization") is None


async def test_a_revoked_grant_ends_requests_at_once(setup: Setup) -> None:
    async with setup.client() as client:
        await client.ask(GET)
        assert await client.ask(GET) == setup.upstream.answer
        setup.tokens._tell(setup.settings.source, Gone("x", Revoked("x was revoked")))
        assert (await client.ask(GET)).startswith(b"HTTP/1.1 503 ")
        setup.tokens._tell(setup.settings.source, Token("another", "Bearer", None, "x"))
        assert await client.ask(GET) == setup.upstream.answer
        assert b"another" in setup.upstream.heads[-1]


# Which requests go the short way, and with which bytes.

API = Upstream("https://api.example", "api.example", "/v2")
PIECES = st.sampled_from(
    [
        *(b"GET /a HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"HEAD /a?x HTTP/1.0\r\n", b"GET /../a HTTP/1.1\r\n"),
        *(b"Host: x\r\n", b"Connection: close\r\n", b"Connection: X-A, Upgrade\r\n", b"Upgrade: websocket\r\n"),
        *(
            b"Content-Length: 0\r\n",
            b"Content-Length: 3\r\n",
            b"X-A:  1 \r\n",
            b"authorization: x\r\n",
            b"\r\n",
            b"abc",
        ),
        *(b"X-Token: mine\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"X b: c\r\n"),
    ]
)


@given(st.lists(PIECES, max_size=7), st.sampled_from([("Authorization", "Bearer t"), ("X-Token", "t")]))
def test_a_short_request_is_the_one_that_the_long_way_sends(pieces: list[bytes], token: tuple[str, str]) -> None:
    data = b"GET /b HTTP/1.1\r\n" * (not pieces or not pieces[0].endswith(b"1.1\r\n")) + b"".join(pieces) + b"\r\n"
    check = Allowed(methods=frozenset((b"GET", b"POST"))).check
    found = ShortRequests(check, API).find(data, token[0])
    if found is None:
        return
    body = data[len(data) - found.length :]
    head = read_request(data.removesuffix(body))  # which raises BadHead for a head that is none, or more than one
    assert found.path == check(head)
    assert len(body) == (head.framing.length or 0)
    length = b"" if head.framing.length is None else b"Content-Length: %d\r\n" % len(body)
    line = f"{token[0]}: {token[1]}\r\n".encode()
    assert found.before + line + found.after == request_lines(head, API, token) + length + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nG",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabG",
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_not_simple_or_not_allowed_goes_the_long_way(data: bytes) -> None:
    requests = ShortRequests(Allowed(paths=("/a",)).check, API)
    assert requests.find(data, "Authorization") is None
    assert requests.find(data, "Authorization") is None
    assert requests.find(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "Authorization") is not None


def test_no_more_heads_are_remembered_than_a_few() -> None:
    requests = ShortRequests(Allowed().check, API)
    for number in range(3 * REMEMBERED):
        requests.find(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number, "Authorization")
    assert len(requests._known) <= REMEMBERED


@pytest.mark.parametrize("line", [b"Cookie: id=s3cret", b"Authorization: Bearer s3cret"])
async def test_a_private_head_is_remembered_nowhere(line: bytes, setup: Setup) -> None:
    async with setup.client() as client:
        for pieces in (2, 1):
            await client.ask(GET[:-2] + line + b"\r\n\r\n", pieces=pieces)
            assert client.proxied._last is None
        assert setup.running.requests is not None
        assert not setup.running.requests._known


def test_the_name_of_the_tokens_header_belongs_to_what_is_remembered() -> None:
    requests = ShortRequests(Allowed().check, API)
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Token: mine\r\n\r\n"
    for _ in range(2):
        assert b"mine" in requests.find(data, "Authorization").before  # type: ignore[union-attr]
        assert b"mine" not in requests.find(data, "X-Token").before  # type: ignore[union-attr]
