# The port at which a scraper reads metrics over TCP: whoever reaches it learns no token, no caller and no reason. Pages
# of browsers are refused; slow clients and crowds shut nobody out.
from __future__ import annotations

import re
import socket

import trio

from brokerd.server.http.metrics_port import MOST
from tests.promtool import complaints
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.scenario.http.conftest import Answer, parsed
from tests.servers import OAuth2


async def with_port(brokerd: Brokerd, serving: Serving, address: str = "127.0.0.1:0") -> int:
    """Started, with the grant "app" and that address; the port."""
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, metrics=address)
    await brokerd.start()
    found = re.search(r"event=ready .*metrics=\S+:(\d+)", brokerd.log)
    assert found is not None
    return int(found[1])


async def sent(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """All that comes back until brokerd ends the connection."""
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(data)
        with trio.fail_after(20):
            return b"".join([piece async for piece in stream])


async def fetched(port: int, path: str, *headers: str, host: str = "localhost", method: str = "GET") -> Answer:
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", "")
    return parsed(await sent(port, "\r\n".join(lines).encode()))


async def test_a_scraper_gets_metrics_and_health_and_nothing_else(brokerd: Brokerd, serving: Serving) -> None:
    port = await with_port(brokerd, serving)
    token = await brokerd.get("app")
    answer = await fetched(port, "/metrics")
    assert answer.status == 200
    assert complaints("check", "metrics", stdin=answer.body.decode()) == ""
    assert b'brokerd_grant_ready{grant="app",provider="oauth2",state="ready"} 1' in answer.body
    assert token.encode() not in answer.body
    assert (await fetched(port, "/livez")).body == b"live\n"
    assert (await fetched(port, "/readyz?verbose")).status == 200
    for path in (
        "/",
        "/v1/token/app",
        "/v1/header/app",
        "/v1/status",
        "/v1/events?grant=app",
        "/readyz/app",
        "/metrics/",
    ):
        answer = await fetched(port, path)
        assert (answer.status, token.encode() in answer.body) == (404, False), path
    assert (await fetched(port, "/metrics", method="POST")).status == 405
    assert (await fetched(port, "/metrics", host="evil.example")).status == 403
    assert (await fetched(port, "/metrics", "Origin: https://evil.example")).status == 403
    assert (await sent(port, b"\x94\x00\x01\xa3get\x91\x81\xa5grant\xa3app\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_it_does_not_say_why_brokerd_is_not_ready(brokerd: Brokerd, serving: Serving) -> None:
    port = await with_port(brokerd, serving)
    await brokerd.call("lock")
    answer = await fetched(port, "/readyz")
    assert answer.status == 503
    assert b"[-]unlocked failed: to see why, on this machine: brokerctl status\n" in answer.body
    assert b"brokerd_locked 1\n" in (await fetched(port, "/metrics")).body


async def test_clients_that_say_nothing_shut_no_scraper_out(brokerd: Brokerd, serving: Serving) -> None:
    port = await with_port(brokerd, serving)
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(MOST + 1)]
    assert (await fetched(port, "/livez")).status == 200
    with trio.fail_after(20):
        assert await silent[0].receive_some() == b""  # it was the oldest
    for each in silent:
        await each.aclose()


async def test_it_listens_on_ipv6(brokerd: Brokerd, serving: Serving) -> None:
    port = await with_port(brokerd, serving, "[::1]:0")
    assert b"200 OK" in await sent(port, b"GET /livez HTTP/1.1\r\nHost: [::1]\r\n\r\n", "::1")
    assert f"metrics=[::1]:{port}" in brokerd.log


async def test_a_port_that_is_taken_is_told(brokerd: Brokerd, serving: Serving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        brokerd.configure({}, {}, metrics=f"127.0.0.1:{port}")
        status, said = await brokerd.refuses_to_start()
    assert status == 2
    words = "Address already in use; stop the program that uses the port, or set another address: [http] metrics"
    assert f"cannot listen at port {port} of 127.0.0.1: {words}" in said


async def test_an_address_for_other_machines_is_allowed_and_warned_about(brokerd: Brokerd, serving: Serving) -> None:
    await with_port(brokerd, serving, "0.0.0.0:0")
    assert "event=metrics_exposed" in brokerd.log
