# Ten thousand connections at the real process: others are served meanwhile, and when they have ended nothing is left of
# them. Where the process may have enough descriptors, each of them is served; otherwise as many as each user may have.
from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import ExitStack
from functools import partial

import trio

from brokerd.proxy.crowd import Crowd
from brokerd.proxy.upstreams import KEPT
from tests.did_not_run import did_not_run
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import until
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.test_bypasses import BECOME
from tests.scenario.proxy.test_forwarding import memory

DESCRIPTORS = 33_000  # three for each connection
ROUNDS = 8  # crowds; the first ones make room for the next, how many depends on what meets by chance
CROWD = """\
uid, number, *where = json.loads(sys.argv[1])
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
become(uid)
host = "x" if len(where) == 1 else f"{where[0]}:{where[1]}"
socks = []
for _ in range(number):
    sock = socket.socket(socket.AF_UNIX if len(where) == 1 else socket.AF_INET)
    sock.connect(where[0] if len(where) == 1 else tuple(where))
    try:
        sock.sendall(f"GET /plain HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        said = sock.recv(65536)
    except OSError:
        said = b""
    assert not said or b" 200 " in said or b" 503 " in said
    if b" 200 " in said:
        socks.append(sock)
print(len(socks), flush=True)
sys.stdin.readline()
for sock in socks:
    sock.sendall(f"GET /plain HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
for sock in socks:
    assert b" 200 " in sock.recv(65536)
print("served", flush=True)
sys.stdin.readline()
"""


async def test_ten_thousand_connections_are_served_with_others_and_leave_nothing_behind(
    world: World, other_user: User, nursery: trio.Nursery
) -> None:
    if subprocess.run(["prlimit", f"--nofile={DESCRIPTORS}", "true"], check=False).returncode:  # noqa: ASYNC221
        words = f"this user may not raise RLIMIT_NOFILE to {DESCRIPTORS}"
        did_not_run("10,000 CONNECTIONS THAT BROKERD-PROXY SERVES", words)
    world.proxy.within = ("prlimit", f"--nofile={DESCRIPTORS}")
    await crowded(world, nursery, [other_user.uid + number for number in range(4)], 2_500, 2_500)


async def test_ten_thousand_connections_of_three_users_shut_nobody_out_and_leave_nothing_behind(
    world: World, other_user: User, nursery: trio.Nursery
) -> None:
    """Each user gets what it may have, and an error for the rest."""
    most = Crowd(resource.getrlimit(resource.RLIMIT_NOFILE)[1]).most_of_user
    await crowded(world, nursery, [other_user.uid + number for number in range(3)], 3_334, min(3_334, most))


async def crowded(world: World, nursery: trio.Nursery, uids: list[int], each: int, held: int) -> None:
    """Each of these users makes so many connections, and so many of them are held."""

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while more := await stream.receive_some(4_096):
            data += more
            while b"\r\n\r\n" in data:
                _, _, data = data.partition(b"\r\n\r\n")
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1", backlog=4_000))
    table = {
        "grant": "app",
        "upstream": f"http://127.0.0.1:{listener.socket.getsockname()[1]}",
        "caller": [{"uid": 0}, *({"uid": uid} for uid in uids)],
    }
    await world.proxy.stop()
    world.proxy.tables(
        unix={**table, "socket": world.proxy.path}, tcp={**table, "listen": f"127.0.0.1:{world.proxy.port}"}
    )
    await world.proxy.start()
    await world.proxy.get()
    before, memories = descriptors(world), list[int]()
    for _ in range(ROUNDS):
        with ExitStack() as stack:
            crowd = [stack.enter_context(begin(world, uid, each, number % 2)) for number, uid in enumerate(uids)]
            await all_say(crowd, b"%d\n" % held)
            assert descriptors(world) >= before + len(uids) * held
            for kind in ("unix", "tcp"):
                assert (await world.proxy.get(kind=kind)).status == 200
            tell(crowd)
            async with world.proxy.link() as link:  # while thousands of requests are under way
                for _ in range(20):
                    assert (await link.get()).status == 200
            await all_say(crowd, b"served\n")
            tell(crowd)
        await until(lambda: descriptors(world) <= before + KEPT, within=60)
        assert (await world.proxy.get()).status == 200
        memories.append(memory(world.proxy.pid))
        if len(memories) > 2 and memories[-1] < max(memories[:-1]) * 1.05:
            return
    raise AssertionError(f"each crowd took more memory than all before it: {memories}")


def begin(world: World, uid: int, number: int, by_tcp: int) -> subprocess.Popen[bytes]:
    where: list[object] = ["127.0.0.1", world.proxy.port] if by_tcp else [str(world.proxy.path)]
    command = [sys.executable, "-S", "-c", BECOME + CROWD, json.dumps([uid, number, *where])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def all_say(crowd: list[subprocess.Popen[bytes]], word: bytes) -> None:
    for each in crowd:
        assert each.stdout is not None
        assert await trio.to_thread.run_sync(each.stdout.readline) == word


def tell(crowd: list[subprocess.Popen[bytes]]) -> None:
    for each in crowd:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()


def descriptors(world: World) -> int:
    return sum(1 for _ in world.proxy.proc("fd").iterdir())
