# A connection has no task of its own while nothing has to be waited for; whatever needs one gets one, and it ends as
# every other.
from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
from brokerd_client.wire import Reader, Response, pack_request, read_reply

from brokerd.core.access.admission import Account, Admission, Limits
from brokerd.edge.peer.peer import demand_credentials, names_of
from brokerd.server.methods.method import AnswerLater
from brokerd.server.server import Server
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

SOON = 10.0  # seconds for what takes milliseconds


class Methods:
    """`later` waits for `gate`."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.ended = 0
        self.events = EventLog()

    def answer(self, _session: object, method: str, _params: dict[str, Any]) -> object:
        if method == "bug":
            raise KeyError(method)
        return AnswerLater(self._later) if method == "later" else method

    async def _later(self) -> object:
        await self.gate.wait()
        return "later"

    def end(self, _session: object) -> None:
        self.ended += 1


class Here:
    def __init__(self, path: Path, nursery: trio.Nursery) -> None:
        self.path, self.nursery, self.methods = path, nursery, Methods()
        self.admission = Admission(Limits(), os.geteuid())
        self.server = Server(nursery, cast(Any, self.methods), self.admission, self.methods.events, Metrics())

    def connections(self) -> int:
        return self.admission._connections

    def tasks(self) -> int:
        """Of connections."""
        return sum(task.name == "connection" for task in self.nursery.child_tasks)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(self.path)

    async def until(self, connections: int, tasks: int) -> None:
        with trio.fail_after(SOON):
            while (self.connections(), self.tasks()) != (connections, tasks):
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def here(folder: Path) -> AsyncIterator[Here]:
    await names_of(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))
    async with trio.open_nursery() as nursery:
        made = Here(folder / "s", nursery)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(made.path))
            listener.listen()
            listener.setblocking(False)
            demand_credentials(listener)
            nursery.start_soon(made.server.accept, listener)
            yield made
            nursery.cancel_scope.cancel()


async def replies(client: trio.SocketStream, number: int) -> list[Any]:
    reader, found = Reader(2**20), list[Any]()
    with trio.fail_after(SOON):
        while len(found) < number:
            if not (data := await client.receive_some()):
                break
            reader.feed(data)
            for reply in map(read_reply, reader):
                assert isinstance(reply, Response)
                found.append((reply.id, reply.error, reply.result))
    return found


async def test_requests_that_are_answered_at_once_need_no_task(tmp_path: Path) -> None:
    async with here(tmp_path) as made, await made.connect() as client:
        for number in range(5):
            await client.send_all(pack_request(number, "quick", {}))
            assert await replies(client, 1) == [(number, None, "quick")]
            assert made.tasks() == 0
        await client.aclose()
        await made.until(connections=0, tasks=0)
        assert made.methods.ended == 1


async def test_who_connects_too_often_and_says_nothing_has_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delay = 0.5
    monkeypatch.setattr(Account, "delay", lambda *_: delay)
    async with here(tmp_path) as made, await made.connect() as client:
        await made.until(connections=1, tasks=0)
        await client.send_all(pack_request(1, "quick", {}))
        await made.until(connections=1, tasks=1)  # it waits for its turn
        delay = 0.0
        assert await replies(client, 1) == [(1, None, "quick")]


async def test_a_request_that_takes_time_is_answered_and_ends_with_the_connection(tmp_path: Path) -> None:
    async with here(tmp_path) as made, await made.connect() as client, await made.connect() as leaves:
        await leaves.send_all(pack_request(1, "later", {}))
        await client.send_all(pack_request(1, "later", {}) + pack_request(2, "quick", {}))
        assert [reply[0] for reply in await replies(client, 1)] == [2]
        await leaves.aclose()
        await made.until(connections=1, tasks=0)
        made.methods.gate.set()
        assert await replies(client, 1) == [(1, None, "later")]


@pytest.mark.parametrize("cut", [1, 5, 9])
async def test_half_a_request_gets_a_task_that_waits_for_the_rest(tmp_path: Path, cut: int) -> None:
    data = pack_request(7, "quick", {})
    async with here(tmp_path) as made, await made.connect() as client:
        await client.send_all(data[:cut])
        await made.until(connections=1, tasks=1)
        await client.send_all(data[cut:])
        assert await replies(client, 1) == [(7, None, "quick")]
        await client.send_all(data)
        assert await replies(client, 1) == [(7, None, "quick")]
        await client.aclose()
        await made.until(connections=0, tasks=0)


async def test_many_requests_at_once_are_answered_in_their_order(tmp_path: Path) -> None:
    async with here(tmp_path) as made, await made.connect() as client:
        await client.send_all(b"".join(pack_request(number, "quick", {}) for number in range(500)))
        assert [reply[0] for reply in await replies(client, 500)] == list(range(500))


@pytest.mark.parametrize("after", [0, 3])
async def test_what_is_no_request_is_rejected_after_the_answers_before_it(tmp_path: Path, after: int) -> None:
    async with here(tmp_path) as made, await made.connect() as client:
        if after:
            await client.send_all(pack_request(0, "quick", {}))
            await replies(client, 1)
        await client.send_all(pack_request(1, "quick", {}) + b"\xc1")
        first, (number, error, _) = await replies(client, 3)
        assert first == (1, None, "quick")
        assert (number, error["code"]) == (None, "bad_request")
        await client.aclose()
        await made.until(connections=0, tasks=0)


async def test_a_bug_ends_its_connection_only(tmp_path: Path) -> None:
    async with here(tmp_path) as made, await made.connect() as client, await made.connect() as other:
        await client.send_all(pack_request(1, "bug", {}))
        assert await replies(client, 1) == []
        await other.send_all(pack_request(1, "quick", {}))
        assert await replies(other, 1) == [(1, None, "quick")]
        await made.until(connections=1, tasks=0)


@pytest.mark.parametrize("rests", [True, False])
async def test_a_bug_at_the_end_of_a_connection_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, rests: bool
) -> None:
    async with here(tmp_path) as made, await made.connect() as client, await made.connect() as other:
        for each in (client, other):
            await each.send_all(pack_request(1, "quick", {}))
            await replies(each, 1)
        if not rests:
            await client.send_all(b"\x94")
            await made.until(connections=2, tasks=1)

        def breaks(_session: object) -> None:
            raise KeyError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(made.methods, "end", breaks)
            await client.aclose()
            await made.until(connections=1, tasks=0)
        await other.send_all(pack_request(2, "quick", {}))
        assert await replies(other, 1) == [(2, None, "quick")]


async def test_resting_connections_end_with_the_server(tmp_path: Path) -> None:
    async with here(tmp_path) as made:
        client = await made.connect()
        await client.send_all(pack_request(1, "quick", {}))
        await replies(client, 1)
        assert made.tasks() == 0
    async with client:
        assert await replies(client, 1) == []
    assert made.methods.ended == 1


async def test_who_is_in_arrears_waits_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with here(tmp_path) as made, await made.connect() as client:
        await client.send_all(pack_request(1, "quick", {}))
        await replies(client, 1)
        found = next(iter(made.server.waiting._waiting.values())).client
        account = cast(Any, found)._account
        account.rate = 100.0
        account.charge(1_020.0, trio.current_time())
        began = trio.current_time()
        await client.send_all(pack_request(2, "quick", {}))
        assert await replies(client, 1) == [(2, None, "quick")]
        assert trio.current_time() - began > 0.05
        assert made.tasks() == 1
