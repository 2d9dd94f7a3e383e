# The real daemon and one kept connection whose gets go the short way (server/short_way.py): what happens between two of
# them holds for the second, and another process gets nothing by it.
from __future__ import annotations

import json
import sys
from typing import Any

import trio

from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.http.conftest import with_http

GET = b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\nAccept: */*\r\n\r\n"
TIMES = 4  # the third get and later ones go the short way


async def answer_of(stream: trio.SocketStream) -> Any:
    data = b""
    while not data.endswith(b"}\n"):
        more = await stream.receive_some()
        assert more, data
        data += more
    return json.loads(data.partition(b"\r\n\r\n")[2])


async def asked(stream: trio.SocketStream) -> Any:
    await stream.send_all(GET)
    return await answer_of(stream)


async def served(stream: trio.SocketStream) -> str:
    values = {(await asked(stream))["access_token"] for _ in range(TIMES)}
    assert len(values) == 1
    return str(values.pop())


async def test_what_happens_between_two_gets_over_http_holds_for_the_second(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    first = await brokerd.get("app")
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        assert await served(stream) == first
        await brokerd.call("lock")
        assert (await asked(stream))["error"] == "locked"
        await brokerd.call("unlock")
        assert await served(stream) == first
        await brokerd.call("refresh", grant="app")
        assert await served(stream) != first
        await brokerd.call("revoke", grant="app")
        assert (await asked(stream))["error"] == "revoked"


async def test_another_process_that_says_the_same_over_http_gets_nothing(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await served(stream)
        number = stream.socket.fileno()
        words = f"import os; os.write({number}, {GET!r})"
        await trio.run_process([sys.executable, "-c", words], pass_fds=[number])
        answer = await answer_of(stream)
    assert "each process makes its own" in answer["message"]
    assert "access_token" not in answer
