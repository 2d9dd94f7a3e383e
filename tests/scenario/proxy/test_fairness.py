# One user who floods a proxy delays no other one, whatever the number of its connections.
from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial

import trio

from tests.scenario.daemon.callers import User
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.test_bypasses import BECOME

FLOOD = 300  # connections
ROUNDS = 4
MOST = 48  # requests of the flood that may come before the other user's: three rounds of the proxy's event loop
FLOODER = """\
uid, path, number = json.loads(sys.argv[1])
become(uid)
socks = [socket.socket(socket.AF_UNIX) for _ in range(number)]
def send():
    for sock in socks:
        sock.sendall(b"GET /flood HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
def read():
    for sock in socks:
        assert b" 200 " in sock.recv(65536)
for sock in socks:
    sock.connect(path)
send(); read()
print("ready", flush=True)
for line in sys.stdin:
    (send if line == "send\\n" else read)()
    print(line, end="", flush=True)
"""


async def test_a_user_who_floods_the_proxy_delays_no_other_user(
    world: World, other_user: User, nursery: trio.Nursery
) -> None:
    """The proxy is stopped until all requests of the flood wait, and the other user's is the last one."""
    order = list[bytes]()

    async def serve(stream: trio.SocketStream) -> None:
        number = len(order)  # connections are accepted in the order in which the proxy opened them
        order.append(b"")
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(4_096)
        order[number] = data.split()[1]
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1", backlog=1_000))
    table = {
        "grant": "app",
        "upstream": f"http://127.0.0.1:{listener.socket.getsockname()[1]}",
        "caller": [{"uid": 0}, {"uid": other_user.uid}],
    }
    world.proxy.tables(unix={**table, "socket": world.proxy.path})
    await world.proxy.reload()
    said = json.dumps([other_user.uid, str(world.proxy.path), FLOOD])
    command = [sys.executable, "-S", "-c", BECOME + FLOODER, said]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flooder:  # noqa: ASYNC220
        output, told = flooder.stdout, flooder.stdin
        assert output is not None
        assert told is not None

        async def tell(word: bytes) -> None:
            told.write(word + b"\n")
            told.flush()
            assert await trio.to_thread.run_sync(output.readline) == word + b"\n"

        assert await trio.to_thread.run_sync(output.readline) == b"ready\n"
        async with world.proxy.link() as link:
            assert (await link.get("/first")).status == 200
            for _ in range(ROUNDS):
                order.clear()
                world.proxy.signal(signal.SIGSTOP)
                await tell(b"send")
                await link.send(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
                world.proxy.signal(signal.SIGCONT)
                assert (await link.answer()).status == 200
                await tell(b"read")
                assert order.count(b"/flood") == FLOOD
                assert order.index(b"/other") <= MOST
        flooder.kill()
