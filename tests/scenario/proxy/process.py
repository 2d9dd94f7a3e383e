# brokerd-proxy as a process of its own, and a client of it: a connection whose answers h11 reads.
from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import trio

from tests.free_port import free_port
from tests.scenario.daemon.harness import Brokerd, Executed, Forked, Table, fork_server, toml
from tests.scenario.proxy.upstream import Upstream

ENTRY = "brokerd.proxy.main"
WITHIN = 60.0  # seconds for whatever a test waits for


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    early: list[int] = field(default_factory=list)  # the 1xx before it

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Link:
    """One connection to the proxy."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def get(self, target: str = "/", *lines: str, method: str = "GET", body: bytes = b"") -> Answer:
        """One request and its answer."""
        length = [f"Content-Length: {len(body)}"] if body else []
        more = "".join(f"{line}\r\n" for line in (*length, *lines))
        await self.send(f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\n{more}\r\n".encode() + body)
        return await self.answer(method)

    @property
    def host(self) -> str:
        name = self.stream.socket.getpeername()
        return f"127.0.0.1:{name[1]}" if isinstance(name, tuple) else "proxy"

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises h11.RemoteProtocolError if it is none, or is cut off."""
        reader, found, early = h11.Connection(h11.CLIENT), None, list[int]()
        reader.send(
            h11.Request(method=method, target="/", headers=[("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "x")])
        )
        reader.send(h11.EndOfMessage())
        reader.receive_data(self._rest) if self._rest else None
        with trio.fail_after(WITHIN):
            while True:
                event = reader.next_event()
                if event is h11.NEED_DATA:
                    reader.receive_data(await self._receive())
                elif isinstance(event, h11.Response):
                    found = _answer(event, early)
                elif isinstance(event, h11.InformationalResponse):
                    early.append(event.status_code)
                    if event.status_code == 101:
                        found = _answer(event, early)
                        break
                elif isinstance(event, h11.Data):
                    assert found is not None
                    found.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise h11.RemoteProtocolError(f"the connection ended: {event}")
        assert found is not None
        self._rest = reader.trailing_data[0]
        return found

    async def some(self) -> bytes:
        """What comes next, raw; b"" at the end."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        with trio.fail_after(WITHIN):
            return await self._receive()

    async def until(self, text: bytes | None) -> bytes:
        """All bytes, until this text has come, or the end."""
        found = b""
        while text is None or text not in found:
            more = await self.some()
            if not more:
                assert text is None, f"it ended after {found[-200:]!r}"
                break
            found += more
        return found

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(65_536))
        except trio.BrokenResourceError:
            return b""


def _answer(event: h11.Response | h11.InformationalResponse, early: list[int]) -> Answer:
    return Answer(
        event.status_code, [(name.decode(), value.decode("latin-1")) for name, value in event.headers], b"", early
    )


class Proxy(Brokerd):
    """It has two proxies of the grant "app" with the same settings: `unix` at a socket, `tcp` at a port."""

    def __init__(self, folder: Path, nursery: trio.Nursery, brokerd: Brokerd, upstream: Upstream) -> None:
        super().__init__(folder / "p", nursery)
        (folder / "p").chmod(0o711)
        self.path = folder / "p" / "sock"
        self.port = free_port()
        self.upstream = upstream
        self._of = brokerd
        self.describe()

    def _begin(self, arguments: list[str], output: int, module: str = "") -> Executed | Forked:
        arguments = ["--socket", str(self._of.socket), str(self.config)]
        return Executed(arguments, output, ENTRY, self.within) if self.within else fork_server(ENTRY)(arguments, output)

    def describe(self, **settings: object) -> None:
        """Write FILE.toml: what both proxies have besides the grant."""
        base: Table = {
            "grant": "app",
            "upstream": self.upstream.url,
            "ca_file": self.upstream.ca_file,
            "caller": {"uid": 0},
        }
        self.tables(
            unix={**base, "socket": self.path, **settings}, tcp={**base, "listen": f"127.0.0.1:{self.port}", **settings}
        )

    def tables(self, **tables: Table) -> None:
        lines = [
            f"[proxies.{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
            for name, table in tables.items()
        ]
        self.write("\n".join(lines))

    async def reload(self) -> None:
        before = self.log.count("event=reloaded") + self.log.count("event=not_reloaded")
        self.signal(signal.SIGHUP)
        with trio.fail_after(WITHIN):
            while self.log.count("event=reloaded") + self.log.count("event=not_reloaded") == before:
                await self._changed.wait()

    @asynccontextmanager
    async def link(self, kind: str = "unix") -> AsyncIterator[Link]:
        if kind == "unix":
            stream = await trio.open_unix_socket(self.path)
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            yield Link(stream)

    async def get(
        self, target: str = "/", *lines: str, kind: str = "unix", method: str = "GET", body: bytes = b""
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.link(kind) as link:
            return await link.get(target, *lines, method=method, body=body)

    async def raw(self, data: bytes, kind: str = "unix") -> bytes:
        """All that comes back for these bytes, until the proxy ends the connection."""
        async with self.link(kind) as link:
            await link.send(data)
            return await link.until(None)
