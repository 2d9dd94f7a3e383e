# A server that answers before it has read the body. Whatever comes next over that connection would be body to it, so
# the proxy must send no other request there.
from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import sys
import termios
from dataclasses import dataclass, field

import pytest
import trio

from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.process import Link

HEAD = b"POST /first HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n"
EARLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"
ENDLESS = 8_000_000  # bytes: no buffers on the way take as much
NEAR = 16 * 1024  # bytes; the proxy reads more than that at once
STILL = 20  # looks that find the same
ATTEMPTS = 20
SOON = 10.0  # seconds; the proxy closes a connection that it kept after 15


@dataclass
class Early:
    """Answers a request with a body when `may_answer` is set, and reads the body after `may_read`. `bodies`: what it
    read as bodies, and how long these were to be."""

    bodies: list[tuple[bytearray, int]] = field(default_factory=list)
    may_answer: trio.Event = field(default_factory=trio.Event)
    may_read: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)  # the connection of the last body
    port: int = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        listener = trio.socket.socket()
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            await listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.port = listener.getsockname()[1]
            await trio.serve_listeners(self._serve, [trio.SocketListener(listener)], task_status=task_status)  # type: ignore[arg-type]

    def again(self) -> None:
        self.may_answer, self.may_read, self.ended = trio.Event(), trio.Event(), trio.Event()

    async def _serve(self, stream: trio.SocketStream) -> None:
        data, ended = bytearray(), self.ended
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                while b"\r\n\r\n" not in data:
                    if not (more := await stream.receive_some(512)):
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                found = re.search(rb"(?i)content-length: (\d+)", head)
                length = int(found[1]) if found else 0
                if length:
                    await self.may_answer.wait()
                await stream.send_all(EARLY)
                if length:
                    self.bodies.append((data, length))
                    await self.may_read.wait()
                    while len(data) < length:
                        if not (more := await stream.receive_some(65_536)):
                            ended.set()
                            return
                        data += more
                    ended.set()
                    data = data[length:]


@pytest.fixture
async def early(world: World, nursery: trio.Nursery) -> Early:
    made = Early()
    await nursery.start(made.run)
    table = {"grant": "app", "upstream": f"http://127.0.0.1:{made.port}", "caller": {"uid": 0}}
    world.proxy.tables(unix={**table, "socket": world.proxy.path})
    await world.proxy.reload()
    return made


async def second_is_answered(world: World, early: Early) -> None:
    with trio.fail_after(20):
        assert (await world.proxy.get("/second")).body == b"early"
    assert [b"/second" in body for body, _ in early.bodies].count(True) == 0


async def test_a_body_that_the_client_did_not_send_whole_swallows_no_later_request(world: World, early: Early) -> None:
    early.may_answer.set()
    async with world.proxy.link() as link:
        await link.send(HEAD % 200_000 + bytes(1_000))
        assert (await link.answer("POST")).body == b"early"
        await second_is_answered(world, early)


async def test_a_body_that_the_proxy_has_read_and_not_sent_whole_swallows_no_later_request(
    world: World, early: Early
) -> None:
    """The body is as long as what the buffers on the way and the proxy take. It is tried until the server has seen that
    the end was missing."""
    for _ in range(ATTEMPTS):
        size = await largest(world)
        early.again()
        async with world.proxy.link() as link:
            if not await is_taken(link, size):
                continue
            early.may_answer.set()
            assert (await link.answer("POST")).body == b"early"
            early.may_read.set()
            with trio.fail_after(SOON):  # the rest has come, or the connection is at its end: nothing can follow there
                await early.ended.wait()
            await second_is_answered(world, early)
        body, length = early.bodies[-1]
        assert length == size
        if len(body) < length:
            return
    raise AssertionError("the proxy was never in the middle of sending")


async def largest(world: World) -> int:
    """The length of the largest body that the proxy takes while the server reads nothing."""
    low, high = 0, ENDLESS
    while high - low > NEAR:
        size = (low + high) // 2
        async with world.proxy.link() as link:
            low, high = (size, high) if await is_taken(link, size) else (low, size)
    return low


async def is_taken(link: Link, size: int) -> bool:
    """Whether the proxy takes all of a body; it is looked at until nothing changes any more."""
    data, looks = HEAD % size + bytes(size), list[tuple[int, int]]()
    link.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
    while len(looks) < STILL or len(set(looks[-STILL:])) > 1:
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(link.stream.socket.fileno(), data) :] if data else data
        looks.append((len(data), unread(link.stream.socket)))
        if looks[-1] == (0, 0):
            return True
        await trio.sleep(0.005)
    return False


def unread(sock: trio.socket.SocketType) -> int:
    """How many bytes the other end has not read yet (unix(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
