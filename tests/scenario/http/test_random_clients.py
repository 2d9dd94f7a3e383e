# Many clients at once that send and leave out whatever chance says, while tokens are renewed and brokerd is locked:
# nothing of them is left, and brokerd meets no fault of its own. A failure prints its seed; SEED=… tries it again.
from __future__ import annotations

import contextlib
import os
import random

import trio
from brokerd_client.errors import BrokerError

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.http.conftest import with_http
from tests.scenario.http.test_attacks import CHUNKED, EVENTS, GET, TWO_WAYS, descriptors
from tests.servers import OAuth2

SECONDS = 3.0
CLIENTS = 20
END = b"\r\n"
POST = b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\n"
GOOD = (
    GET + END,
    GET + b"Connection: close\r\n\r\n",
    GET.replace(b"1.1", b"1.0") + END,
    GET.replace(b"app", b"app?audience=a&wait=0.2") + END,
    GET.replace(b"app", b"app?scope=b") + b"X-A: b\r\n\r\n",
    GET.replace(b"token/app", b"status") + END,
    GET.replace(b"GET /v1/token/app", b"HEAD /v1/status") + END,
    EVENTS,
    EVENTS.replace(b"1.1", b"1.0"),
    POST + b"Content-Length: 3\r\n\r\nabc",
    POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    b"abc",
)


async def test_whatever_clients_send_brokerd_goes_on_and_nothing_of_them_is_left(
    brokerd: Brokerd, serving: Serving
) -> None:
    seed = os.environ.get("SEED", str(random.randrange(10**6)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    provider = await with_http(brokerd, serving)
    most = len(list(brokerd.proc("fd").iterdir())) + 3  # the provider's connections
    await brokerd.get("app")
    with trio.move_on_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(clients, str(brokerd.http_socket), chance)
            nursery.start_soon(operator, brokerd, provider, chance)
    with trio.CancelScope(shield=True):
        provider.release()
        await brokerd.call("unlock")
        assert (await brokerd.call("hello"))["protocol"] == 1
        await descriptors(brokerd, most)
    assert "a fault of brokerd's own" not in brokerd.log


async def clients(path: str, chance: random.Random) -> None:
    while True:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await one_client(path, chance)


async def one_client(path: str, chance: random.Random) -> None:
    """Raises OSError, trio.BrokenResourceError."""
    async with await trio.open_unix_socket(path) as stream:
        with trio.CancelScope() as reading:
            async with trio.open_nursery() as nursery:
                if chance.random() < 0.8:
                    nursery.start_soon(read, stream, chance)
                with contextlib.suppress(trio.BrokenResourceError):
                    for _ in range(chance.randrange(1, 8)):
                        await send(stream, chance)
                    if chance.random() < 0.4:
                        await stream.send_eof()
                    await trio.sleep(chance.random() * 0.2)
                reading.cancel()


async def read(stream: trio.SocketStream, chance: random.Random) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(chance.choice((10, 1_000, 65_536))):
            if chance.random() < 0.1:
                await trio.sleep(chance.random() * 0.05)


async def send(stream: trio.SocketStream, chance: random.Random) -> None:
    data = chance.choice(GOOD if chance.random() < 0.8 else TWO_WAYS)
    at = chance.randrange(len(data))
    match chance.randrange(10):
        case 0:
            data = data[:at]
        case 1:
            data *= chance.randrange(1, 300)
        case 2:
            data = data[:at] + chance.randbytes(1) + data[at:]
        case 3 | 4:
            for byte in data[:500]:
                await stream.send_all(bytes([byte]))
            return
    with trio.move_on_after(0.2):
        await stream.send_all(data)


async def operator(brokerd: Brokerd, provider: OAuth2, chance: random.Random) -> None:
    while True:
        await trio.sleep(chance.random() * 0.3)
        try:
            match chance.randrange(3):
                case 0:
                    with provider.hold("issue"):
                        await trio.sleep(chance.random() * 0.3)
                case 1:
                    await brokerd.call("lock")
                    await brokerd.call("unlock")
                case 2:
                    await brokerd.call("refresh", grant="app", wait=0)
        except BrokerError:
            pass
