# Thousands of connections, streams and waiting requests of one user over HTTP, while other users are served.
from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import trio

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.http.conftest import Answer, curl, with_http
from tests.scenario.http.test_attacks import EVENTS, until

ANOTHER = User(60_901, 60_901)
STREAMS = 600
SERVED = 40  # requests of another user that are answered while brokerd pushes to those streams


def rules(*users: User) -> list[dict[str, Any]]:
    return [{"grants": ["app"], "caller": {"uid": user.uid}} for user in users]


async def test_ten_thousand_connections_of_a_user_leave_others_served(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await with_http(brokerd, serving, socket_mode="0666", allow=rules(ANOTHER))
    await brokerd.get("app")
    async with trio.open_nursery() as nursery:
        process = await crowd(nursery, CROWD, brokerd, other_user)
        said = await until(process.stdout, b"\n", within=60)
        opened, refused = map(int, said.split())
        assert opened + refused == 10_000
        assert opened <= 4096
        with trio.fail_after(10):
            assert (await curl(brokerd, "/v1/token/app")).status == 200
            assert (await curl(brokerd, "/v1/token/app", user=ANOTHER)).status == 200
        await process.stdin.aclose()


async def test_a_renewal_that_hundreds_of_streams_wait_for_leaves_others_served(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    """brokerd answers other users between two pushes."""
    await with_http(brokerd, serving, socket_mode="0666", allow=rules(other_user))
    await brokerd.get("app")
    async with trio.open_nursery() as nursery:
        process = await crowd(nursery, WATCHERS, brokerd, other_user)
        await until(process.stdout, b"open\n", within=60)
        served = 0

        async def ask() -> None:
            nonlocal served
            async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
                while True:
                    await stream.send_all(b"GET /no HTTP/1.1\r\nHost: brokerd\r\n\r\n")
                    await stream.receive_some()
                    served += 1

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await brokerd.call("refresh", grant="app")
            await until(process.stdout, b"pushed\n", within=60)
            asking.cancel_scope.cancel()
        assert served >= SERVED
        await process.stdin.aclose()


async def test_requests_that_wait_are_bounded_for_each_user(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await with_http(
        brokerd, serving, socket_mode="0666", allow=rules(other_user, ANOTHER), max_waiting_per_user=3
    )
    found: list[Answer] = []

    async def ask(user: User) -> None:
        found.append(await curl(brokerd, "/v1/token/app?wait=60", user=user))

    with provider.hold("issue") as gate:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, other_user)
            await gate.reached()
            with trio.fail_after(20):
                while len(found) < 2:
                    await trio.sleep(0.01)
            assert [(each.status, each.json["error"]) for each in found] == [(429, "limit")] * 2
            assert all(each.headers["retry-after"] == "1" for each in found)
            nursery.start_soon(ask, ANOTHER)
            gate.release()
    assert [each.status for each in found[2:]] == [200] * 4


async def test_no_wait_is_longer_than_a_minute(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    for wait in ("60.1", "-1", "nan", "inf", "1e999", "", "0x10", "%00", "60,", "١" * 3):
        answer = await curl(brokerd, f"/v1/token/app?wait={wait}")
        assert (answer.status, answer.json["error"]) == (400, "bad_request"), wait


async def crowd(nursery: trio.Nursery, script: str, brokerd: Brokerd, user: User) -> trio.Process:
    words = script.format(path=str(brokerd.http_socket), uid=user.uid, streams=STREAMS, events=EVENTS)
    command = [sys.executable, "-c", BEGIN.format(uid=user.uid) + words]
    run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process: trio.Process = await nursery.start(run)
    return process


BEGIN = """
import os, resource, socket, sys
os.setgroups([])
os.setresuid({uid}, {uid}, {uid})
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
"""
CROWD = """
held, refused = [], 0
for _ in range(10_000):
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(5)
        sock.connect({path!r})
        sock.send(b"GET /v1/token/app HTTP/1.1\\r\\n")
        sock.setblocking(False)
        held.append(sock)
    except OSError:
        refused += 1
        sock.close()
    if len(held) > 4000:
        held, gone = held[-3000:], held[:-3000]
        for each in gone:
            each.close()
            refused += 1
print(len(held), refused, flush=True)
sys.stdin.read()
"""
WATCHERS = """
def event(sock):
    found = b""
    while b"event: token" not in found:
        data = sock.recv(65536)
        assert data, found
        found += data
socks = [socket.socket(socket.AF_UNIX) for _ in range({streams})]
for sock in socks:
    sock.settimeout(60)
    sock.connect({path!r})
    sock.send({events!r})
    event(sock)
print("open", flush=True)
for sock in socks:
    event(sock)
print("pushed", flush=True)
sys.stdin.read()
"""
