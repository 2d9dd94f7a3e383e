# Upstreams that hang, reset, lie and refuse; clients that are slow or leave; brokerd away; tokens that end.
from __future__ import annotations

import h11
import pytest
import trio

from tests.scenario.daemon.harness import until
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.upstream import End, Reset, Seen
from tests.scenario.proxy.upstream import Link as Upstreams

OK = b"HTTP/1.1 200 OK\r\n"
ABC = OK + b"Content-Length: 3\r\n\r\nabc"
POST_CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_an_upstream_that_does_not_answer_is_given_up_and_others_are_served(world: World) -> None:
    async def hang(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.stream.receive_some(1)
        raise End

    world.proxy.describe(timeout=1.0)
    await world.proxy.reload()
    world.upstream.on("/hang", hang)
    async with world.proxy.link() as slow, world.proxy.link() as large, world.proxy.link() as other:
        await slow.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        await large.send(b"POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000)
        assert (await other.get()).status == 200
        for link in (slow, large):
            answer = await link.answer()
            assert (answer.status, answer.json["error"]) == (504, "upstream")
            assert "no answer within 1 s" in answer.json["message"]
    await until(lambda: world.upstream.open == 1)


LIES = {  # what the upstream sends, and what the client sees: a status, or 0 for an answer that is cut off
    "nothing": (b"", 502),
    "half a head": (b"HTTP/1.1 200 OK\r\nX:", 502),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", 502),
    "two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 502),
    "length and coding": (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502),
    "another coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nabc", 502),
    "a folded line": (OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", 502),
    "a bare LF": (OK + b"X: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", 502),
    "a NUL": (OK + b"X: a\0\r\nContent-Length: 0\r\n\r\n", 502),
    "an endless head": (OK + b"X: y\r\n" * 20_000, 502),
    "a body that is cut off": (OK + b"Content-Length: 10\r\n\r\nabc", 0),
    "chunks that are cut off": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0),
    "chunks that are none": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 0),
    "a body without a proper end": (OK + b"\r\nabc", 0),
    "two answers": (ABC + OK + b"Content-Length: 4\r\n\r\nevil", 200),
    "1xx before it": (
        b"HTTP/1.1 103 X\r\nLink: a\r\n\r\nHTTP/1.1 100 X\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        200,
    ),
}


async def test_what_an_upstream_sends_is_one_right_answer_or_none(world: World) -> None:
    for number, (name, (data, status)) in enumerate(LIES.items()):

        async def lie(link: Upstreams, seen: Seen, data: bytes = data) -> None:
            await link.body(seen)
            await link.send(data)
            raise Reset

        world.upstream.on(f"/{number}", lie)
        async with world.proxy.link() as link:
            try:
                answer = await link.get(f"/{number}")
            except h11.RemoteProtocolError:
                assert status == 0, name
                continue
            assert answer.status == status, (name, answer)
            if status == 200:
                assert (answer.body, answer.early) == (b"abc", []), name
                assert (await link.get("/next")).json["target"] == "/next", name
    assert len(world.upstream.seen) == len(LIES) + 2  # nothing was repeated


async def test_a_kept_connection_that_has_died_is_noticed_and_only_safe_requests_are_repeated(world: World) -> None:
    async def once(link: Upstreams, seen: Seen) -> None:
        """The first request on a connection is answered; at the second, the connection breaks."""
        await link.body(seen)
        if seen.connection in used:
            raise Reset
        used.add(seen.connection)
        await link.answer(200, b"fine")

    used = set[int]()
    world.upstream.on("/once", once)
    async with world.proxy.link() as link:
        for method, body, status in (("GET", b"", 200), ("PUT", b"ab", 200), ("POST", b"ab", 502)):
            assert (await link.get("/once")).status == 200
            before = len(world.upstream.seen)
            assert (await link.get("/once", method=method, body=body)).status == status
            assert len(world.upstream.seen) - before == (2 if status == 200 else 1)
            if status == 502:
                return


async def test_a_token_that_the_api_refuses_is_replaced_and_the_request_repeated_once(world: World) -> None:
    old = await world.brokerd.get("app")
    await world.proxy.get()
    world.upstream.accepts = lambda token: token != old
    before = len(world.upstream.seen)
    async with world.proxy.link() as link:
        for method, body in (("GET", b""), ("POST", b"a" * 60_000)):
            answer = await link.get("/x", method=method, body=body)
            assert (answer.status, answer.json["size"]) == (200, len(body))
    tokens = [seen.token for seen in world.upstream.seen[before:]]
    assert tokens == [old, tokens[1], tokens[1]]
    assert tokens[1] == await world.brokerd.get("app") != old


async def test_a_body_that_is_not_held_is_not_repeated_and_the_next_request_has_the_new_token(world: World) -> None:
    old = await world.brokerd.get("app")
    world.upstream.accepts = lambda token: token != old
    assert (await world.proxy.get("/x", method="POST", body=b"a" * 100_000)).status == 401
    assert (await world.proxy.get("/x")).status == 200


async def test_an_api_that_refuses_every_token_costs_few_exchanges_and_its_401_comes_through(world: World) -> None:
    world.upstream.accepts = lambda _: False
    async with world.proxy.link() as link:
        for _ in range(30):
            answer = await link.get()
            assert (answer.status, answer.body) == (401, b"who are you?")
            assert answer.all("www-authenticate") == ["Bearer"]
    assert len(world.upstream.seen) <= 60
    assert world.provider.count("issue") <= 4


async def test_without_brokerd_requests_fail_with_the_reason_and_go_on_by_themselves(world: World) -> None:
    await world.proxy.get()
    await world.brokerd.stop()
    assert (await world.proxy.get()).status == 200  # the token lives
    await world.proxy.stop()
    await world.proxy.start()
    async with world.proxy.link() as link:
        for method in ("GET", "HEAD"):
            answer = await link.get(method=method)
            assert answer.status == 503
        assert "is brokerd running?" in (await link.get()).json["message"]
        await world.brokerd.start()
        with trio.fail_after(20):
            while (await link.get()).status == 503:
                pass
    assert world.proxy.log.count("event=brokerd_away") == 2
    assert "event=brokerd_back" in world.proxy.log


async def test_a_revoked_grant_ends_requests_at_once_and_says_why(world: World) -> None:
    async with world.proxy.link() as link:
        assert (await link.get()).status == 200
        await world.brokerd.call("revoke", grant="app")
        with trio.fail_after(10):
            while (answer := await link.get()).status == 200:
                pass
    assert (answer.status, answer.json["error"]) == (503, "revoked")
    seen = len(world.upstream.seen)
    assert (await world.proxy.get()).status == 503
    assert len(world.upstream.seen) == seen


async def test_a_proxy_without_a_rule_says_so(world: World) -> None:
    world.proxy.describe(grant="other")
    await world.proxy.reload()
    answer = await world.proxy.get()
    assert (answer.status, answer.json["error"]) == (503, "unknown_grant")


async def test_a_client_that_leaves_while_the_upstream_is_silent_ends_the_request(world: World) -> None:
    async def hang(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        reached.append(seen)
        await link.stream.receive_some(1)
        raise End

    reached = list[Seen]()
    world.upstream.on("/hang", hang)
    for kind, size in (("unix", 0), ("tcp", 0), ("unix", 100_000), ("tcp", 100_000)):
        async with world.proxy.link(kind) as link:
            before = len(reached)
            head = f"POST /hang HTTP/1.1\r\nHost: {link.host}\r\nContent-Length: {size}\r\n\r\n"
            await link.send(head.encode() + b"a" * size)
            await until(lambda before=before: len(reached) > before)
        await until(lambda: world.upstream.open == 0)


async def test_a_client_that_breaks_off_its_body_sends_no_whole_request(world: World) -> None:
    ended = list[Seen]()

    async def record(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        ended.append(seen)
        await link.answer(200)

    world.upstream.on("/", record)
    for framing, body in (
        (b"Content-Length: 10", b"abc"),
        (b"Content-Length: 100000", b"abc"),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n"),
    ):
        async with world.proxy.link() as link:
            await link.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + body)
    bad = await world.proxy.raw(POST_CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n")
    assert bad.startswith(b"HTTP/1.1 400 ")
    await until(lambda: world.upstream.open == 0)
    assert ended == []


async def test_a_large_body_that_is_refused_early_still_brings_the_answer(world: World) -> None:
    async def too_large(link: Upstreams, seen: Seen) -> None:
        await link.answer(413, b"too large", "Connection: close")
        raise End

    world.upstream.on("/413", too_large)
    for target, status in (("/413", 413), ("/../x", 400)):
        async with world.proxy.link("tcp") as link:
            head = f"POST {target} HTTP/1.1\r\nHost: {link.host}\r\nContent-Length: 8000000\r\n\r\n"
            await link.send(head.encode())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.send, b"a" * 8_000_000)
                assert (await link.answer("POST")).status == status
                nursery.cancel_scope.cancel()


async def test_the_wrong_upstream_certificate_is_named_and_sends_nothing(world: World) -> None:
    world.proxy.describe(ca_file="/etc/ssl/certs/ca-certificates.crt")
    await world.proxy.reload()
    answer = await world.proxy.get()
    assert answer.status == 502
    assert "certificate" in answer.json["message"]
    assert world.upstream.seen == []


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_token_of_a_narrower_scope_is_what_the_upstream_sees(world: World, kind: str) -> None:
    world.proxy.describe(scope=["read"])
    await world.proxy.reload()
    assert (await world.proxy.get(kind=kind)).status == 200
    narrow = await world.brokerd.get("app", scope=["read"])
    assert world.upstream.seen[-1].token == narrow != await world.brokerd.get("app")
