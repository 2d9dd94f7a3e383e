# Clients that are slow, on virtual time: a head that never ends, a connection that is left idle. The
# connection is a real one.
from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from brokerd_client.on_trio import Broker

from brokerd.config.proxies import read
from brokerd.proxy.clients import IDLE, STALLED, ProxyClient
from brokerd.proxy.running import RunningProxy
from brokerd.proxy.short_way import ShortWays
from brokerd.proxy.streams import MANY, SIZE, SMALL, buffer
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.turns import Turn, Turns
from brokerd.proxy.upstreams import UpstreamConnections
from brokerd.proxy.usage import Usage
from tests.unit.proxy.conftest import Setup

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def running(tmp_path: Path) -> RunningProxy:
    path = tmp_path / "proxy.toml"
    keys = f'grant = "x"\nupstream = "https://localhost"\nsocket = "/x"\ncaller = {{ uid = {os.geteuid()} }}\n'
    path.write_text(f"[proxies.x]\n{keys}")
    (settings,), _ = read(path)
    return RunningProxy(
        settings, LiveTokens(cast(Broker, None), lambda _: None), Usage(), UpstreamConnections(settings)
    )


async def served(running: RunningProxy, data: bytes, *, reads: bool = True) -> tuple[bytes, float]:
    """What comes back for these bytes, until the end; and the seconds until then."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for each in (ours, theirs):
            each.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ways = ShortWays()
        client, began = ProxyClient(theirs, running, 0, ways, Turn(Turns(), 0)), trio.current_time()
        await client.attest()
        ours.send(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ways.run)
            async with trio.open_nursery() as serving:
                serving.start_soon(client.serve)
                found = b""
                while reads:
                    await trio.lowlevel.wait_readable(ours)
                    if not (more := ours.recv(65_536)):
                        break
                    found += more
            nursery.cancel_scope.cancel()
        client.close()
        return found, trio.current_time() - began


async def test_a_head_that_never_ends_is_given_up_after_its_time(running: RunningProxy, autojump_clock: None) -> None:
    found, took = await served(running, b"GET / HTTP/1.1\r\nX:")
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"the whole head of a request within 30 s" in found
    assert 30 <= took < 40


async def test_a_connection_that_is_left_idle_is_closed(running: RunningProxy, autojump_clock: None) -> None:
    _, took = await served(running, b"", reads=False)
    assert took >= IDLE


async def test_a_client_that_leaves_its_answer_unread_is_ended(setup: Setup, autojump_clock: trio.abc.Clock) -> None:
    async def endless(stream: trio.SocketStream, _head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await stream.send_all(bytes(100_000))

    setup.upstream.plays = endless
    async with setup.client() as client:
        began = trio.current_time()
        await client.stream.send_all(GET)
        with trio.fail_after(10 * STALLED):
            while client.proxied.sock.fileno() >= 0:
                await trio.sleep(1.0)
        assert STALLED <= trio.current_time() - began < STALLED + 10
    assert setup.upstream.ended == 1


async def test_a_client_that_reads_slowly_is_served_to_the_end(
    setup: Setup, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1  # the kernel needs real time to pass bytes on
    size = 2_000_000
    setup.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    async with setup.client() as client:
        began, found = trio.current_time(), 0
        await client.stream.send_all(GET)
        while found < size:
            await trio.sleep(STALLED / 4)  # after half of that, the proxy may still wait for room
            more = await client.stream.receive_some(200_000)
            assert more
            found += len(more)
        assert trio.current_time() - began > 2 * STALLED


def test_buffers_are_small_where_very_many_are_in_use() -> None:
    with ExitStack() as stack:
        sizes = [len(stack.enter_context(buffer())) for _ in range(MANY + 10)]
    assert sizes == [SIZE] * MANY + [SMALL] * 10
    with buffer() as room:
        assert len(room) == SIZE
