# What a client sends, or does, behind a request that waits for its answer: it reaches nobody else, and leaves nothing.
from __future__ import annotations

import socket

import trio

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.http.conftest import raw, with_http
from tests.scenario.http.test_attacks import EVENTS, GET, descriptors, reconfigure, until

CLOSE = b"Connection: close\r\n"


async def test_bad_input_behind_a_waiting_request_costs_its_sender_only(brokerd: Brokerd, serving: Serving) -> None:
    """Answer and refusal come, in this order, and brokerd goes on."""
    provider = await with_http(brokerd, serving)
    found = b""

    async def ask() -> None:
        nonlocal found
        found = await raw(brokerd, GET + b"\r\ngarbage\r\n\r\n" + GET + b"\r\n")

    with provider.hold("issue") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await gate.reached()
            gate.release()
    assert found.startswith(b"HTTP/1.1 200 ")
    assert (found.count(b"HTTP/1.1 200 "), found.count(b"HTTP/1.1 400 ")) == (1, 1)
    assert (await brokerd.call("hello"))["protocol"] == 1


async def test_a_flood_behind_the_last_request_leaves_no_connection(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_http(brokerd, serving)
    before = len(list(brokerd.proc("fd").iterdir()))
    with provider.hold("issue") as gate:
        async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
            await stream.send_all(GET + CLOSE + b"\r\n" + b"x" * 30_000)
            await gate.reached()
            gate.release()
            assert (await until(stream, None)).count(b"HTTP/1.1 ") == 1
    await descriptors(brokerd, before + 1)  # the provider's connection


async def test_a_client_that_ends_its_sending_gets_every_answer(brokerd: Brokerd, serving: Serving) -> None:
    """Also if it does so while brokerd waits for it to read."""
    provider = await with_http(brokerd, serving)
    with provider.hold("issue") as gate:
        async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            many = 16 * 1024 // len(GET + b"\r\n")
            await stream.send_all(GET + b"\r\n")
            await gate.reached()
            await stream.send_all((GET + b"\r\n") * many)
            gate.release()
            await provider_was_left(brokerd)
            await stream.send_eof()
            found = await until(stream, None)
    assert found.count(b"HTTP/1.1 200 ") == 1 + many


async def test_a_stream_that_has_ended_takes_its_connection_with_it(brokerd: Brokerd, serving: Serving) -> None:
    """Also if the client keeps its end open."""
    provider = await with_http(brokerd, serving)
    most = len(list(brokerd.proc("fd").iterdir())) + 1  # the provider's connection
    await brokerd.get("app")
    for head in (EVENTS, EVENTS.replace(b"HTTP/1.1", b"HTTP/1.0")):
        async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
            await stream.send_all(head)
            await until(stream, b"event: token")
            brokerd.configure({}, {}, http=True)
            await brokerd.call("reload")
            assert b"unknown_grant" in await until(stream, None)
            await descriptors(brokerd, most)
        reconfigure(brokerd, provider)
        await brokerd.call("reload")


async def provider_was_left(brokerd: Brokerd) -> None:
    """The first answer is written, and the others as far as the client's socket takes them."""
    with trio.fail_after(20):
        while "event=renewed" not in brokerd.log:
            await trio.sleep(0.01)
    await brokerd.call("hello")
