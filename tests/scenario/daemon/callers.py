# Callers of a test's brokerd: connections that speak its protocol themselves, processes of other users, and an
# application at a provider's API.
from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import trio
from brokerd_client.errors import from_map
from brokerd_client.wire import MAX_ANSWER, Notification, Reader, pack_request, read_reply

from tests.servers import Provider

if TYPE_CHECKING:
    from tests.scenario.daemon.harness import Brokerd


class Caller:
    """One connection to brokerd, by docs/protocol.md and no client of ours."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._reader = Reader(MAX_ANSWER)
        self._sent = 0
        self._answers: dict[int | None, tuple[dict[str, Any] | None, Any]] = {}

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def call(self, method: str, /, **params: object) -> Any:
        """A request and its answer. Raises brokerd_client.errors."""
        error, result = await self.answer(await self.send(method, **params))
        if error is not None:
            raise from_map(error)
        return result

    async def send(self, method: str, /, **params: object) -> int:
        """A request; the number under which its answer comes."""
        self._sent += 1
        await self.stream.send_all(pack_request(self._sent, method, params))
        return self._sent

    async def answer(self, number: int | None) -> tuple[dict[str, Any] | None, Any]:
        """Error and result under that number. Raises EOFError where the connection ends first."""
        while number not in self._answers:
            await self._receive()
        return self._answers.pop(number)

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next notification."""
        while not self.events:
            await self._receive()
        return self.events.pop(0)

    async def closed(self) -> None:
        """Wait until brokerd has closed the connection."""
        with contextlib.suppress(EOFError, trio.BrokenResourceError):
            while True:
                await self._receive()

    async def _receive(self) -> None:
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError("brokerd closed the connection")
        self._reader.feed(bytes(data))
        for message in self._reader:
            reply = read_reply(message)
            if isinstance(reply, Notification):
                self.events.append((reply.method, reply.params))
            else:
                self._answers[reply.id] = (reply.error, reply.result)


class User:
    """Another user of this machine, with a process of its own that calls."""

    def __init__(self, uid: int, gid: int, *groups: int) -> None:
        self.uid, self.gid, self.groups = uid, gid, groups

    @contextlib.asynccontextmanager
    async def connected(self, brokerd: Brokerd) -> AsyncIterator[UserCaller]:
        """One connection, for several calls."""
        ids = map(str, (self.uid, self.gid, *self.groups))
        async with trio.open_nursery() as nursery:
            command = [sys.executable, str(Path(__file__).with_name("as_user.py")), str(brokerd.socket), *ids]
            process = await nursery.start(_piped, command)
            yield UserCaller(process)
            await process.stdin.aclose()

    async def call(self, brokerd: Brokerd, method: str, /, **params: object) -> Any:
        """One call: a result, or an error's map."""
        async with self.connected(brokerd) as connection:
            return await connection.call(method, **params)


class UserCaller:
    """The connection of another user."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._received = b""

    async def call(self, method: str, /, **params: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(json.dumps([method, params]).encode() + b"\n")
        while b"\n" not in self._received:
            data = await self._process.stdout.receive_some()
            assert data, "the other user's process has ended"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


async def _piped(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    task_status.started(process)
    await process.wait()
    assert process.returncode == 0
    assert process.stdout is not None
    await process.stdout.aclose()


class Api:
    """An application at the providers' protected API: one kept connection to each server."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, int], tuple[trio.SocketStream, h11.Connection]] = {}

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream, _http in self._connections.values():
            await trio.aclose_forcefully(stream)

    async def me(self, provider: Provider[Any], token: str) -> tuple[int, dict[str, Any]]:
        """`GET /me`: status, and what the provider says of the token's holder."""
        scheme, _, rest = provider.base_url.partition("://")
        authority, _, path = rest.partition("/")
        host, _, port = authority.partition(":")
        assert scheme == "http"
        stream, http = await self._connection(host, int(port))
        headers = [("host", authority), ("authorization", f"Bearer {token}")]
        request = h11.Request(method="GET", target=f"/{path}/me", headers=headers)
        await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        status, content = 0, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content += event.data
        http.start_next_cycle()
        return status, json.loads(content)

    async def _connection(self, host: str, port: int) -> tuple[trio.SocketStream, h11.Connection]:
        if (host, port) not in self._connections:
            stream = await trio.open_tcp_stream(host, port)
            self._connections[host, port] = stream, h11.Connection(h11.CLIENT)
        return self._connections[host, port]
