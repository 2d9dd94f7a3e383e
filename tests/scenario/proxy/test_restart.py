# A reload and a restart lose no connection on which nothing is under way. The service manager is played by a socket
# that receives what systemd would, and by a start with the descriptors that it would pass.
from __future__ import annotations

import array
import operator
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.harness import ROOT, until
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.process import WITHIN, Link
from tests.scenario.proxy.upstream import Link as Upstreams
from tests.scenario.proxy.upstream import Seen

MOST = 253  # descriptors of one message
START = 'export LISTEN_PID=$$ LISTEN_FDS="$1"; shift; exec "$@"'


class Manager:
    """Keeps the descriptors that services give it, and starts them with these."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.address)
        self._sock.setblocking(False)
        self.kept: list[tuple[str, int]] = []
        self.said: list[str] = []

    async def run(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            text, found, _, _ = self._sock.recvmsg(4096, socket.CMSG_SPACE(MOST * 4))
            descriptors = array.array("i")
            for _, _, data in found:
                descriptors.frombytes(data)
            states = dict(each.split("=", 1) for each in text.decode().splitlines())
            self.said += states
            if "FDSTOREREMOVE" in states:
                for name, descriptor in self.kept:
                    if name == states["FDNAME"]:
                        os.close(descriptor)
                self.kept = [each for each in self.kept if each[0] != states["FDNAME"]]
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
                if "FDSTORE" in states and not any(same(descriptor, each) for _, each in self.kept):
                    self.kept.append((states["FDNAME"], descriptor))
                else:
                    os.close(descriptor)  # of BARRIER=1, or kept already

    def count(self, name: str) -> int:
        return sum(each == name for each, _ in self.kept)

    def start(self, world: World) -> subprocess.Popen[bytes]:
        """With the descriptors so far, from 3 on. It goes on keeping them, until it is told to forget them."""
        kept = [descriptor for _, descriptor in self.kept]
        command = [sys.executable, "-W", "error", "-m", "brokerd.proxy.main"]
        command += ["--socket", str(world.brokerd.socket), str(world.proxy.config)]

        def place() -> None:
            held = [os.dup(each) for each in kept]
            for number, each in enumerate(held):
                os.dup2(each, 3 + number, inheritable=True)

        whole = ["/bin/sh", "-c", START, "sh", str(len(kept)), *command]
        environ = {**os.environ, "NOTIFY_SOCKET": self.address}
        return subprocess.Popen(whole, cwd=ROOT, env=environ, preexec_fn=place, close_fds=False)

    async def until_ready(self, times: int) -> None:
        await until(lambda: self.said.count("READY") >= times, within=30)

    def close(self) -> None:
        self._sock.close()
        for _, descriptor in self.kept:
            os.close(descriptor)


def same(one: int, other: int) -> bool:
    return os.fstat(one).st_ino == os.fstat(other).st_ino


@pytest.fixture
async def manager(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Manager]:
    made = Manager(folder)
    nursery.start_soon(made.run)
    yield made
    made.close()


async def test_a_restart_under_load_loses_no_idle_connections_next_request(world: World, manager: Manager) -> None:
    async def slow(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await go_on.wait()
        await link.answer(200, b"slow")

    go_on = trio.Event()
    world.upstream.on("/slow", slow)
    await world.proxy.stop()
    first = manager.start(world)
    await manager.until_ready(1)
    assert manager.count("listener") == 2
    links = [Link(await trio.open_unix_socket(world.proxy.path)) for _ in range(20)]
    links += [Link(await trio.open_tcp_stream("127.0.0.1", world.proxy.port)) for _ in range(20)]
    busy = Link(await trio.open_unix_socket(world.proxy.path))
    for link in links:
        assert (await link.get()).status == 200
    await busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: world.upstream.seen[-1].target == "/slow")
    first.send_signal(signal.SIGTERM)
    await until(lambda: manager.count("connection") == len(links))
    for link in links[::2]:
        await link.send(f"GET /next HTTP/1.1\r\nHost: {link.host}\r\n\r\n".encode())
    waiting = Link(await trio.open_tcp_stream("127.0.0.1", world.proxy.port))  # nobody accepts it now
    go_on.set()
    assert (await busy.answer()).body == b"slow"
    assert await trio.to_thread.run_sync(first.wait) == 0
    assert "BARRIER" in manager.said
    assert manager.count("connection") == len(links) + 1  # the busy one too, when it was served
    second = manager.start(world)
    await manager.until_ready(2)
    assert (manager.count("connection"), manager.count("listener")) == (0, 2)  # else nobody could end them
    for link in links[::2]:
        assert (await link.answer()).json["target"] == "/next"
    for link in (*links[1::2], busy, waiting):
        assert (await link.get("/again")).json["target"] == "/again"
    second.terminate()
    await trio.to_thread.run_sync(second.wait)
    for link in (*links, busy, waiting):
        await link.stream.aclose()


async def test_clients_that_send_one_request_after_the_other_notice_no_restart(
    world: World, manager: Manager, nursery: trio.Nursery
) -> None:
    """Each request is sent over a connection that was idle before, at whatever point the restart is."""

    async def load(number: int) -> None:
        kind = "unix" if number % 2 else "tcp"
        body = b"a" * (0, 10, 100_000)[number % 3]
        async with world.proxy.link(kind) as link:
            while not enough.is_set():
                answer = await link.get(f"/{number}", method="POST" if body else "GET", body=body)
                assert (answer.status, answer.json["target"], answer.json["size"]) == (200, f"/{number}", len(body))
                answered[number] += 1

    enough, answered = trio.Event(), [0] * 24
    await world.proxy.stop()
    running = manager.start(world)
    await manager.until_ready(1)
    async with trio.open_nursery() as clients:
        for number in range(len(answered)):
            clients.start_soon(load, number)
        for restarts in range(1, 4):
            before = list(answered)
            await until(lambda before=before: all(map(operator.gt, answered, before)), within=WITHIN)
            running.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(running.wait) == 0
            running = manager.start(world)
            await manager.until_ready(1 + restarts)
        before = list(answered)
        await until(lambda: all(map(operator.gt, answered, before)), within=WITHIN)
        enough.set()
    running.terminate()
    await trio.to_thread.run_sync(running.wait)


async def test_a_reload_keeps_connections_and_what_is_under_way_and_closes_what_is_gone(world: World) -> None:
    async def slow(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await go_on.wait()
        await link.answer(200, b"slow")

    go_on = trio.Event()
    world.upstream.on("/slow", slow)
    table = {"grant": "app", "upstream": world.upstream.url, "ca_file": world.upstream.ca_file, "caller": {"uid": 0}}
    async with world.proxy.link() as unix, world.proxy.link("tcp") as tcp, world.proxy.link() as busy:
        assert (await unix.get()).status == (await tcp.get()).status == 200
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: world.upstream.seen[-1].target == "/slow")
        world.proxy.tables(unix={**table, "socket": world.proxy.path, "paths": ["/v3/*"]})
        await world.proxy.reload()
        assert await tcp.some() == b""
        go_on.set()
        assert (await busy.answer()).body == b"slow"
        assert (await busy.get("/v3/x")).status == 200
        assert (await unix.get("/v2/x")).status == 403
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", world.proxy.port)


async def test_a_place_that_a_reload_removes_is_closed_though_systemd_kept_it(world: World, manager: Manager) -> None:
    async def is_closed() -> bool:
        try:
            await (await trio.open_tcp_stream("127.0.0.1", world.proxy.port)).aclose()
        except OSError:
            return True
        return False

    await world.proxy.stop()
    both = world.proxy.config.read_text()
    for restarts in (False, True):
        world.proxy.config.write_text(both)
        running = manager.start(world)
        times = manager.said.count("READY")
        await manager.until_ready(times + 1)
        assert not await is_closed()
        world.proxy.config.write_text(both.partition("[proxies.tcp]")[0])
        if restarts:
            running.send_signal(signal.SIGTERM)
            await trio.to_thread.run_sync(running.wait)
            running = manager.start(world)
        else:
            running.send_signal(signal.SIGHUP)
        await manager.until_ready(times + 2)
        await until(lambda: manager.count("listener") == 1)
        assert await is_closed()
        running.terminate()
        await trio.to_thread.run_sync(running.wait)


async def test_a_mistake_in_the_file_changes_nothing_and_is_named(world: World) -> None:
    before = world.proxy.config.read_text()
    for text, words in (
        (before.replace("grant", "grand"), "grand"),
        (before.replace("127.0.0.1:", "192.0.2.1:"), "a loopback address"),
        (before.replace(str(world.proxy.port), str(world.upstream.port)), "cannot listen"),
        ("", "expected [proxies.NAME] tables"),
    ):
        world.proxy.config.write_text(text)
        await world.proxy.reload()
        assert words in world.proxy.log.splitlines()[-1]
        assert (await world.proxy.get()).status == (await world.proxy.get(kind="tcp")).status == 200
