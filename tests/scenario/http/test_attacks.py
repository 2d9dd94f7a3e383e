# Attacks on the HTTP socket: requests that could be read in two ways, slow ones, large ones, many of them.
from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial
from typing import Any

import trio

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, TICK, Brokerd, Serving, at
from tests.scenario.http.conftest import Answer, curl, needs_curl, raw, with_http
from tests.servers import OAuth2

GET = b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\n"
EVENTS = b"GET /v1/events?grant=app HTTP/1.1\r\nHost: brokerd\r\n\r\n"
CHUNKED = b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\nTransfer-Encoding: chunked\r\n\r\n"


TWO_WAYS = (
    GET + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    GET + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    GET + b"Transfer-Encoding: gzip\r\n\r\n",
    GET + b"Content-Length: +4\r\n\r\nabcd",
    GET + b"Content-Length: 0x4\r\n\r\nabcd",
    GET + b"X: a\rY: b\r\n\r\n",
    GET + b"X: a\x00b\r\n\r\n",
    GET + b"X: a\r\n b\r\n\r\n",
    GET + b"X: a\r\n\tContent-Length: 4\r\n\r\n",
    GET + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    GET + b"X: a\nY: b\r\n\r\n",
    GET + b"X: a\n\n",
    GET + b"X: a\r\n\n",
    CHUNKED + b"1;x=\n5\r\na\r\n0\r\n\r\n",
    CHUNKED + b"1\na\n0\n\n",
    CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    CHUNKED + b"ffffffffffffffffffff\r\na" + b"a" * 300_000,
    CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n",
    CHUNKED + b"0" * 40_000,
    CHUNKED + b"1;" + b"x" * 40_000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    GET + b"X : a\r\n\r\n",
    GET + b": a\r\n\r\n",
    GET + b"Host: other\r\n\r\n",
    b"GET /v1/token/app HTTP/1.1\r\n\r\n",
    b"GET /v1/token/app HTTP/2.0\r\nHost: brokerd\r\n\r\n",
    b"GET /v1/token/app\r\n\r\n",
    b"GET  /v1/token/app HTTP/1.1\r\nHost: brokerd\r\n\r\n",
    b"\x94\x00\x01\xa5hello\x91\x80",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    GET + b"X: " + b"a" * 60_000 + b"\r\n\r\n",
    b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\nContent-Length: 300000\r\n\r\n" + b"a" * 300_000,
)


async def test_what_can_be_read_in_two_ways_gets_no_token_and_ends_the_connection(
    brokerd: Brokerd, serving: Serving
) -> None:
    await with_http(brokerd, serving)
    for data in TWO_WAYS:
        answer = await raw(brokerd, data + GET + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 "), (data[:200], answer[:100])
        assert b"Connection: close" in answer
        assert b"access_token" not in answer, data[:200]
    assert (await brokerd.call("hello"))["protocol"] == 1


PATHS = (
    b"/v1/status/../token/app",
    b"/v1/token/../token/app",
    b"/v1/token/app/../app",
    b"/v1/token/app/..",
    b"/v1/token/%2e%2e/app",
    b"/v1/token%2fapp",
    b"/v1/token/%2561pp",
    b"/v1/token/./app",
    b"/v1/token//app",
    b"//v1/token/app",
    b"//brokerd/v1/token/app",
    b"/\\v1\\token\\app",
    b"/V1/token/app",
    b"/v1/token/APP",
    b"/v1/token/app/",
    b"/v1/token/app%00",
    b"/v1/token/app%00.json",
    b"/v1/token/app%0d%0aX:a",
    b"/v1/token/app%20",
    b"/v1/token/%61pp%2f",
    b"/v1/token/%c0%afapp",
    b"/v1/token/%ff",
    b"/v1/token/app;x",
    b"/v1/token/app%3fmin_ttl=1",
    b"/v1/token/app#x",
    b"/v1/token?GRANT=app",
    b"file:///v1/token/app",
    b"http:/v1/token/app",
    b"http:v1/token/app",
    b"http:///v1/token/app",
    b"http://user@brokerd/v1/token/app",
    b"http://brokerd/v1/token/app#x",
    b"http://brokerd",
    b"http://brokerd?x=/v1/token/app",
    b"brokerd:80",
    b"*",
)


async def test_no_path_leads_to_a_token_but_its_own(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    for path in PATHS:
        answer = await raw(brokerd, b"GET " + path + b" HTTP/1.1\r\nHost: brokerd\r\nConnection: close\r\n\r\n")
        assert b"access_token" not in answer, path
        is_page = path == b"http://brokerd" and answer.startswith(b"HTTP/1.1 200 ")  # the status page
        assert is_page or answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), (path, answer[:100])
        assert answer.count(b"\r\nX:") == 0


async def test_a_slow_request_is_given_up_and_costs_nobody_else_anything(brokerd: Brokerd, serving: Serving) -> None:
    """At the start of a connection, behind a request that had to wait, and within a body."""
    provider = await with_http(brokerd, serving)
    found: dict[bytes, bytes] = {}

    async def ask(data: bytes) -> None:
        found[data] = await raw(brokerd, data)

    with provider.hold("issue") as gate:
        async with trio.open_nursery() as nursery:
            waiting = GET + b"\r\n" + GET
            nursery.start_soon(ask, waiting)
            await gate.reached()
            gate.release()
            for data in (GET, CHUNKED + b"5\r\nab"):
                nursery.start_soon(ask, data)
            assert (await curl(brokerd, "/v1/token/app")).status == 200
    assert found[waiting].startswith(b"HTTP/1.1 200 ")
    for answer in found.values():
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert b"the rest of a message within 10 s" in answer


async def test_nothing_may_follow_a_request_for_events(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(EVENTS)
        found = await until(stream, b"event: token")
        await stream.send_all(GET + b"\r\n")
        found += await until(stream, None)
    assert found.count(b"HTTP/1.1 ") == 1


async def test_what_waits_behind_a_request_is_bounded(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_http(brokerd, serving)
    with provider.hold("issue") as gate:
        async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
            await stream.send_all(GET + b"\r\n")
            await gate.reached()
            sent, data = 0, GET + b"\r\n"
            with trio.move_on_after(2) as scope:  # brokerd reads no more of it
                while True:
                    await stream.send_all(data)
                    sent += len(data)
            assert scope.cancelled_caught
            assert sent < 1024 * 1024
            gate.release()
            await until(stream, b"access_token")


async def test_a_half_closed_client_gets_the_answer_that_it_waits_for(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_http(brokerd, serving)
    with provider.hold("issue") as gate:
        async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
            await stream.send_all(GET + b"\r\n")
            await stream.send_eof()
            await gate.reached()
            gate.release()
            assert b"access_token" in await until(stream, None)


async def test_a_client_that_hangs_up_leaves_nothing_behind(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_http(brokerd, serving)
    before = len(list(brokerd.proc("fd").iterdir()))
    with provider.hold("issue") as gate:
        for head in (GET, EVENTS, GET * 20):
            async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
                await stream.send_all(head + b"\r\n")
        await gate.reached()
        await descriptors(brokerd, before + 2)  # the provider's connection
        gate.release()
    await brokerd.get("app")


async def test_a_client_that_never_reads_is_given_up_in_bounded_memory(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    request = b"GET /v1/status HTTP/1.1\r\nHost: brokerd\r\n\r\n"
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        sent = 0
        with trio.move_on_after(2):
            while sent < 4 * 1024 * 1024:
                await stream.send_all(request * 50)
                sent += len(request) * 50
        assert sent < 1024 * 1024
        assert (await brokerd.call("hello"))["protocol"] == 1


async def test_other_methods_get_no_token_and_their_answers_end_where_they_say(
    brokerd: Brokerd, serving: Serving
) -> None:
    await with_http(brokerd, serving)
    last = b"GET /no HTTP/1.1\r\nHost: brokerd\r\nConnection: close\r\n\r\n"
    for method in (b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND", b"get"):
        answer = await raw(brokerd, method + GET.removeprefix(b"GET") + b"\r\n" + last)
        assert answer.startswith(b"HTTP/1.1 405 "), method
        assert b"\r\nAllow: GET\r\n" in answer
        assert b"access_token" not in answer
        assert answer.count(b"HTTP/1.1 404 ") == 1
        if method == b"HEAD":
            assert b"\r\n\r\nHTTP/1.1 404 " in answer


async def test_a_proposal_of_another_protocol_is_not_taken_up(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    for upgrade in (b"websocket", b"h2c", b"TLS/1.0"):
        head = GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
        answer = await raw(brokerd, head + b"\r\n" + GET + b"Connection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == 2
        assert b" 101 " not in answer


async def test_curl_that_expects_to_be_told_to_go_on_is_told(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    first = await brokerd.get("app")
    answer = await curl(brokerd, "/v1/refused/app", "-H", "Expect: 100-continue", data=first.encode())
    assert (answer.status, answer.json["access_token"] != first) == (200, True)


async def test_another_process_on_the_connection_gets_nothing(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    ours = socket.socket(socket.AF_UNIX)
    with ours:
        ours.connect(str(brokerd.http_socket))
        words = f"import os; os.write({ours.fileno()}, {GET + b'Connection: close' + bytes((13, 10, 13, 10))!r})"
        await trio.run_process([sys.executable, "-c", words], pass_fds=[ours.fileno()])
        ours.settimeout(20)
        answer = await trio.to_thread.run_sync(lambda: b"".join(iter(lambda: ours.recv(65536), b"")))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"each process makes its own" in answer
    assert b"access_token" not in answer


async def test_a_rule_that_goes_while_a_request_waits_gives_what_an_unknown_grant_gives(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}}
    provider = await with_http(brokerd, serving, socket_mode="0666", allow=[rule])
    found: list[Answer] = []

    async def ask() -> None:
        found.append(await curl(brokerd, "/v1/token/app", user=other_user))

    with provider.hold("issue") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await gate.reached()
            reconfigure(brokerd, provider, socket_mode="0666")
            await brokerd.call("reload")
            gate.release()
    unknown = await curl(brokerd, "/v1/token/qqq", user=other_user)
    assert (found[0].status, found[0].body.replace(b"app", b"qqq")) == (404, unknown.body)
    assert (await curl(brokerd, "/v1/token/app")).status == 200


async def test_a_stream_of_events_ends_when_its_rule_is_gone(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    needs_curl()
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}}
    provider = await with_http(brokerd, serving, socket_mode="0666", allow=[rule])
    await brokerd.get("app")
    command = ["curl", "-sSN", "--unix-socket", str(brokerd.http_socket), "http://brokerd/v1/events?grant=app"]
    ids: dict[str, Any] = {"user": other_user.uid, "group": other_user.gid, "extra_groups": ()}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, **ids))
        said = await until(process.stdout, b"access_token")
        reconfigure(brokerd, provider, socket_mode="0666")
        await brokerd.call("reload")
        await brokerd.call("refresh", grant="app")
        said = await until(process.stdout, None)
    assert said.startswith(b"event: gone")
    assert b"unknown_grant" in said
    assert b"access_token" not in said


def reconfigure(brokerd: Brokerd, provider: OAuth2, **settings: Any) -> None:
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, http=True, **settings)


async def until(stream: Any, words: bytes | None, within: float = 20) -> bytes:
    """What comes until these words have come; None: until the end."""
    found = b""
    with trio.fail_after(within):
        while words is None or words not in found:
            try:
                data = await stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                assert words is None, f"it ended with {found[-300:]!r}"
                break
            found += data
    return found


async def descriptors(brokerd: Brokerd, most: int) -> None:
    with trio.fail_after(20):
        while len(list(brokerd.proc("fd").iterdir())) > most:
            await trio.sleep(TICK)
