# What a client sees of the proxy in front of an API that works: every request with the token, every answer as it came.
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.harness import until
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.process import Link
from tests.scenario.proxy.upstream import End, Seen
from tests.scenario.proxy.upstream import Link as Upstreams

MIB = 1024 * 1024
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
POST_CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BOTH = pytest.mark.parametrize("kind", ["unix", "tcp"])


@BOTH
async def test_a_request_gets_the_token_and_the_answer_comes_back_as_it_was(world: World, kind: str) -> None:
    token = await world.brokerd.get("app")
    async with world.proxy.link(kind) as link:
        first = await link.get("/v2/things?x=1", "X-Mine: 1", "Authorization: Bearer mine")
        again = await link.get("/v2/more", method="PUT", body=b"hello")
    assert first.status == again.status == 200
    assert first.json["target"] == "/v2/things?x=1"
    seen = world.upstream.seen
    assert [each.token for each in seen] == [token, token]
    assert seen[0].all("host") == [f"localhost:{world.upstream.port}"]
    assert (seen[0].all("x-mine"), seen[1].size, seen[0].connection) == (["1"], 5, seen[1].connection)
    assert world.upstream.bad == []


async def test_bodies_go_both_ways_in_every_framing(world: World) -> None:
    async def chunks(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(OK_CHUNKED + b"3;a=b\r\nabc\r\n3\r\ndef\r\n0\r\nX: y\r\n\r\n")

    async def to_the_end(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nabcdef")
        raise End

    async def no_body(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(f"HTTP/1.1 {seen.target[1:]} X\r\nETag: a\r\n\r\n".encode())

    world.upstream.handlers |= {"/chunks": chunks, "/end": to_the_end, "/204": no_body, "/304": no_body}
    async with world.proxy.link() as link:
        for path in ("/chunks", "/end", "/chunks"):
            answer = await link.get(path)
            assert (answer.status, answer.body, answer.all("transfer-encoding")) == (200, b"abcdef", ["chunked"])
            assert answer.all("trailer") == []
        await link.send(POST_CHUNKED + b"5;x\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n")
        said = (await link.answer()).json
        assert (said["size"], said["digest"]) == (6, hashlib.sha256(b"hello!").hexdigest())
        assert ["transfer-encoding", "chunked"] in said["headers"]
        head = await link.get("/", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        for status in (204, 304):
            answer = await link.get(f"/{status}")
            assert (answer.status, answer.all("etag"), answer.all("transfer-encoding")) == (status, ["a"], [])
        assert (await link.get("/last")).status == 200
    assert world.upstream.bad == []


async def test_old_clients_are_served_as_they_ask(world: World) -> None:
    async def chunks(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    world.upstream.on("/chunks", chunks)
    whole = await world.proxy.raw(b"GET /chunks HTTP/1.0\r\n\r\n")
    assert whole.endswith(b"\r\nConnection: close\r\n\r\nabc")
    async with world.proxy.link() as link:
        for _ in range(2):
            await link.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await link.answer()).all("connection") == ["keep-alive"]
    closed = await world.proxy.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in closed


async def test_requests_that_come_at_once_are_answered_in_turn(world: World) -> None:
    async with world.proxy.link() as link:
        post = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        await link.send(b"".join(post % number for number in range(20)))
        found = [(await link.answer()).json["target"] for _ in range(20)]
    assert found == [f"/{number}" for number in range(20)]


async def test_a_client_that_waits_for_100_is_told_to_go_on_and_one_that_is_refused_is_not(world: World) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    for size in (5, 200_000):
        async with world.proxy.link() as link:
            await link.send(head % size)
            await link.until(b"100 Continue\r\n\r\n")
            await link.send(b"a" * size)
            assert (await link.answer()).json["size"] == size
    refused = await world.proxy.raw(b"TRACE" + head[4:] % 5)
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert all(seen.all("expect") == [] for seen in world.upstream.seen)


@pytest.mark.parametrize(("kind", "size"), [("unix", 8 * MIB), ("tcp", 16 * MIB)])
async def test_large_bodies_stream_both_ways_with_flat_memory(world: World, kind: str, size: int) -> None:
    async def down(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(piece)):
            await link.send(piece)

    piece = bytes(range(256)) * 1024
    world.upstream.on("/down", down)
    async with world.proxy.link(kind) as link:
        await link.get()
        before = memory(world.proxy.pid)
        assert (await link.get("/down")).body == piece * (size // len(piece))
        answer = await link.get("/up", method="POST", body=piece * (size // len(piece)))
        assert answer.json["size"] == size
        await link.send(b"POST /up HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % link.host.encode())
        for _ in range(size // len(piece)):
            await link.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await link.send(b"0\r\n\r\n")
        assert (await link.answer()).json["size"] == size
        assert memory(world.proxy.pid) - before < 4 * MIB


async def test_an_answer_may_come_while_the_body_is_still_on_its_way(world: World) -> None:
    async def talk(link: Upstreams, seen: Seen) -> None:
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def repeat(data: bytes) -> None:
            await link.send(b"%x\r\n%b\r\n" % (len(data), data))

        await link.body(seen, repeat)
        await link.send(b"0\r\n\r\n")

    world.upstream.on("/talk", talk)
    async with world.proxy.link() as link:
        await link.send(b"POST /talk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await link.until(b"\r\n\r\n")
        for word in (b"one", b"two"):
            await link.send(b"3\r\n%b\r\n" % word)
            await link.until(word)
        await link.send(b"0\r\n\r\n")
        await link.until(b"0\r\n\r\n")


@BOTH
async def test_server_sent_events_come_one_by_one_and_end_when_the_client_goes(world: World, kind: str) -> None:
    more = trio.Event()

    async def events(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await more.wait()
        await link.send(b"data: 2\n\n")
        await link.stream.receive_some(1)  # its end
        raise End

    world.upstream.on("/events", events)
    async with world.proxy.link(kind) as link:
        await link.send(f"GET /events HTTP/1.1\r\nHost: {link.host}\r\n\r\n".encode())
        await link.until(b"data: 1\n\n")
        more.set()
        await link.until(b"data: 2\n\n")
        assert world.upstream.open == 1
    await until(lambda: world.upstream.open == 0)


async def test_a_websocket_speaks_both_ways_until_one_side_ends(world: World) -> None:
    async def websocket(link: Upstreams, seen: Seen) -> None:
        assert seen.all("upgrade") == ["websocket"]
        assert seen.all("connection") == ["Upgrade"]
        await link.send(SWITCHING + b"Upgrade: websocket\r\nX: y\r\n\r\nhello")
        while data := await link.stream.receive_some(1024):
            await link.send(data.upper())
        raise End

    world.upstream.on("/ws", websocket)
    async with world.proxy.link() as link:
        answer = await link.get("/ws", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
        assert (answer.status, answer.all("upgrade"), answer.all("x")) == (101, ["websocket"], ["y"])
        await link.until(b"hello")
        for word in (b"abc", b"def"):
            await link.send(word)
            await link.until(word.upper())
    await until(lambda: world.upstream.open == 0)


async def test_another_protocol_that_nobody_asked_for_is_no_answer(world: World) -> None:
    async def switch(link: Upstreams, seen: Seen) -> None:
        await link.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")

    world.upstream.on("/x", switch)
    assert (await world.proxy.get("/x")).status == 502
    h2c = await world.proxy.get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A")
    assert h2c.status == 502
    assert world.upstream.seen[-1].all("upgrade") == []


async def test_a_thousand_idle_connections_cost_little_and_each_is_served(world: World) -> None:
    links = list[Link]()
    before = memory(world.proxy.pid)
    try:
        for _ in range(1_000):
            links.append(Link(await trio.open_unix_socket(world.proxy.path)))
        await world.proxy.get()
        for link in links[::50]:
            assert (await link.get()).status == 200
        assert memory(world.proxy.pid) - before < 1_000 * 40 * 1024
    finally:
        for link in links:
            await link.stream.aclose()
    assert world.upstream.connections < 5


def memory(pid: int) -> int:
    """Bytes that the process has in memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Rss:")).split()[1]) * 1024
