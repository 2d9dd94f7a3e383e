# The real daemon with very many connections: a thousand that are idle, stuck or half sent, and users who take all that
# they can get. Memory is bounded for each connection, and everybody else is served (law 13).
from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from brokerd_client.wire import pack_request

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, SOON, Brokerd, Serving, at, until
from tests.servers import OAuth2

MANY = 1_000
KIB = 1024
GET = pack_request(1, "get", {"grant": "app"})
LARGE = pack_request(1, "get", {"grant": "x" * 60_000})
UNTIL_STUCK = pack_request(1, "fetch", {}) * 5_000  # each is answered with a long error, and nothing is logged

pytestmark = pytest.mark.usefixtures("many_descriptors")


async def running(brokerd: Brokerd, serving: Serving, **settings: object) -> Brokerd:
    """A brokerd with a living token, whose socket everybody may open."""
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, socket_mode="0666", **settings)
    await brokerd.start()
    await brokerd.get("app")
    return brokerd


@contextlib.contextmanager
def connections(brokerd: Brokerd, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(number)]
        for sock in made:
            sock.connect(str(brokerd.socket))
            sock.setblocking(False)
        yield made


def memory(brokerd: Brokerd) -> int:
    """Resident, in bytes (proc(5), statm)."""
    return int(brokerd.proc("statm").read_text().split()[1]) * resource.getpagesize()


def descriptors(brokerd: Brokerd) -> int:
    return len(list(brokerd.proc("fd").iterdir()))


async def answered(sock: socket.socket) -> None:
    with trio.fail_after(SOON):
        await trio.lowlevel.wait_readable(sock)
    assert sock.recv(65_536)


def say(sock: socket.socket, data: bytes) -> None:
    """Send it all, or what the kernel takes at once."""
    with contextlib.suppress(BlockingIOError):
        while data:
            data = data[sock.send(data) :]


@pytest.mark.parametrize(
    ("what", "said", "most"),
    [
        ("idle since they were answered", pack_request(1, "hello", {}), 16 * KIB),
        ("half a frame", GET[:-3], 80 * KIB),
        ("half a large frame", LARGE[:50_000], 160 * KIB),
        ("pipelining without reading", UNTIL_STUCK, 100 * KIB),
    ],
)
async def test_a_thousand_connections_cost_little_each_and_everybody_else_is_served(
    brokerd: Brokerd, serving: Serving, what: str, said: bytes, most: int
) -> None:
    await running(brokerd, serving)
    before, usual = memory(brokerd), descriptors(brokerd)
    with connections(brokerd, MANY) as crowd:
        await until(lambda: descriptors(brokerd) > usual + MANY - 5)  # callers of before may leave
        for number, sock in enumerate(crowd):
            say(sock, said)
            if number % 100 == 0:
                assert await brokerd.get("app")
        assert await brokerd.get("app")
        assert (memory(brokerd) - before) / MANY < most, what
    await until(lambda: descriptors(brokerd) < usual + 20)


async def test_requests_that_come_byte_by_byte_are_answered(brokerd: Brokerd, serving: Serving) -> None:
    await running(brokerd, serving)
    with connections(brokerd, 100) as crowd:
        for byte in GET:
            for sock in crowd:
                sock.send(bytes((byte,)))
            assert await brokerd.get("app")
        for sock in crowd:
            await answered(sock)


# Limits of one user; the callers are other users, whom no rule lets get anything.


class Crowd:
    """Connections of one user, by many_connections.py."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def connect(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        """How many there came to be, and the errors of the others."""
        assert self._process.stdin
        assert self._process.stdout
        await self._process.stdin.send_all(f"{number}\n".encode())
        line = b""
        while not line.endswith(b"\n"):
            more = await self._process.stdout.receive_some()
            assert more, "many_connections.py has ended"
            line += more
        said = json.loads(line)
        return said["connected"], said["refused"]

    async def leave(self) -> None:
        assert self._process.stdin
        await self._process.stdin.aclose()
        await self._process.wait()


@contextlib.asynccontextmanager
async def crowd_of(brokerd: Brokerd, uid: int) -> AsyncIterator[Crowd]:
    command = [sys.executable, str(Path(__file__).with_name("many_connections.py")), str(brokerd.socket), str(uid)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_piped, command)
        crowd = Crowd(process)
        yield crowd
        await crowd.leave()
        await process.stdout.aclose()


async def _piped(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    task_status.started(process)
    assert await process.wait() == 0


async def test_a_user_takes_his_share_all_take_what_there_is_and_root_gets_in(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await running(brokerd, serving, max_connections=40, max_connections_per_user=30)
    async with crowd_of(brokerd, other_user.uid) as greedy, crowd_of(brokerd, other_user.uid + 1) as second:
        connected, refused = await greedy.connect(100)
        assert connected == 30
        assert {error["code"] for error in refused} == {"limit"}
        assert "at most 30 connections of a user; close some, or raise [daemon]" in refused[0]["message"]
        connected, refused = await second.connect(20)
        assert connected == 10
        assert "all 40 connections are taken" in refused[0]["message"]
        assert await brokerd.call("status")
        with connections(brokerd, 20) as operators:
            for sock in operators:
                sock.send(GET)
                await answered(sock)
        await greedy.leave()
        await until(lambda: descriptors(brokerd) < 40)
        assert (await second.connect(5))[0] == 5
    assert brokerd.log.count("a connection was refused") == 2


async def test_waiting_requests_of_a_user_are_counted_over_all_his_connections(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await serving(OAuth2())
    allow = [{"grants": ["app"], "caller": {"uid": other_user.uid}}]
    brokerd.configure(
        {"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=allow, socket_mode="0666", max_waiting_per_user=3
    )
    with provider.hold("issue") as gate:
        await brokerd.start()
        async with trio.open_nursery() as nursery, other_user.connected(brokerd) as last:

            async def wait() -> None:
                while "value" not in (answer := await other_user.call(brokerd, "get", grant="app", wait=60)):
                    assert answer["code"] == "limit"  # the last one below was in the way

            many = await last.call("get_many", grants=["app"] * 4)
            assert many["code"] == "limit"
            assert "at most 3 waiting requests of a user" in many["message"]
            for _ in range(3):
                nursery.start_soon(wait)
            while (error := await last.call("get", grant="app", wait=0.05))["code"] != "limit":
                assert error["code"] == "unavailable"
            nursery.start_soon(partial(brokerd.get, "app", wait=60))
            await gate.reached()
            gate.release()
        assert "value" in await other_user.call(brokerd, "get", grant="app")


async def test_a_daemon_takes_all_descriptors_that_it_may_have(brokerd: Brokerd, serving: Serving) -> None:
    await running(brokerd, serving)
    soft, hard = resource.prlimit(brokerd.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
