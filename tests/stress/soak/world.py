# What all parts of a soak share: the daemon with its log looked through as it comes, the providers' process, who was
# killed when, and what must never be seen.
from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.forked import ROOT
from tests.scenario.daemon.harness import Brokerd, Table
from tests.stress.soak.plan import IMPORTED, Grant, Service

SECRET = (
    b"test-only-",
    b"eyJhbGciOi",
    b"dGVzdC1vbmx5",
    b"Rlc3Qtb25se",
    b"0ZXN0LW9ubHkt",
)  # as text, JWT, and in base64
KEPT_LOG = 100_000  # characters in memory; all of it is in the file
PATHS = {"oauth2": {"token_url": "/token", "revocation_url": "/revoke"}}


class Soaked(Brokerd):
    """The daemon, with a log that is not kept in memory."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        super().__init__(folder, nursery)
        self.executed = True
        self.faults: list[str] = []  # lines that should not be in the log
        self.lines = 0
        self.written = folder / "log"

    async def _listen(self, stream: trio.SocketStream) -> None:
        rest = b""
        with self.written.open("ab") as file:
            async with stream:
                async for data in stream:
                    file.write(data)
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._look(line)
                    self._tell()
        self._quiet.set()
        self._tell()

    def _look(self, line: bytes) -> None:
        self.lines += 1
        if b"Traceback" in line or b"Warning" in line:
            self.faults.append(f"the log has {line[:200]!r}")
        elif any(each in line for each in SECRET):
            self.faults.append(f"a secret is in the log: {line[:60]!r}…")
        elif b"event=token_fetched" not in line:
            self.log = (self.log + line.decode(errors="replace") + "\n")[-KEPT_LOG:]


class Providers:
    """The process of providers.py; one request at a time."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._rest = b""
        self._turn = trio.Lock()
        self.urls: dict[str, tuple[str, str]] = {}

    async def ask(self, verb: str, service: str, /, **arguments: object) -> Any:
        return await self._converse([verb, service, arguments])

    async def begin(self, services: list[Service]) -> None:
        self.urls = await self._converse([asdict(each) for each in services])

    async def _converse(self, request: object) -> Any:
        with trio.CancelScope(shield=True):  # an answer that nobody takes would be the next one's
            async with self._turn:
                await self._in.send_all(json.dumps(request).encode() + b"\n")
                while b"\n" not in self._rest:
                    data = await self._out.receive_some()
                    assert data, "the providers' process has ended"
                    self._rest += data
                line, _, self._rest = self._rest.partition(b"\n")
                return json.loads(line)


@dataclass
class World:
    """`scale`: 1 in a soak of many minutes, less where everything has to be quick."""

    brokerd: Soaked
    providers: Providers
    grants: dict[str, Grant]
    chance: random.Random
    scale: float
    configured: dict[str, tuple[str, ...]] = field(default_factory=dict)  # grant → scope
    counts: Counter[str] = field(default_factory=Counter)  # what was done and met
    broken: list[str] = field(default_factory=list)  # what must not be
    kills: list[float] = field(default_factory=list)  # when the daemon was killed
    allowed_bad: Counter[str] = field(default_factory=Counter)  # by service: failures that its faults may cause a grant
    extra: Counter[str] = field(default_factory=Counter)  # by grant: exchanges beyond those that its lifetime brings
    dead_early: Counter[str] = field(default_factory=Counter)  # by service: times that living tokens were killed there
    begun: float = field(default_factory=time.monotonic)

    @property
    def services(self) -> dict[str, Service]:
        return {grant.service.name: grant.service for grant in self.grants.values()}

    def configure(self) -> None:
        tables: dict[str, Table] = {name: self.grants[name].table(scope) for name, scope in self.configured.items()}
        self.brokerd.configure(tables, {name: self._provider(each) for name, each in self.services.items()}, http=True)

    def breaks(self, words: str) -> None:
        self.counts["violations"] += 1
        if len(self.broken) < 50:
            self.broken.append(words)

    async def import_token(self, name: str) -> None:
        """A person logs in."""
        token = await self.providers.ask("login", self.grants[name].service.name, grant=name)
        self.extra[name] += 1
        await self.brokerd.call("import", grant=name, refresh_token=token)

    def imported(self) -> list[str]:
        return [name for name in self.configured if self.grants[name].kind == IMPORTED]

    def _provider(self, service: Service) -> Table:
        url, _ = self.providers.urls[service.name]
        if service.dialect != "oauth2":
            return {"dialect": service.dialect, "base_url": url}
        return {"dialect": "oauth2", **{name: url + path for name, path in PATHS["oauth2"].items()}}


@asynccontextmanager
async def providers(services: list[Service]) -> AsyncIterator[Providers]:
    """Their process, for as long as the block lasts."""
    command = [sys.executable, "-W", "error", "-m", "tests.stress.soak.providers"]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        made = Providers(process)
        await made.begin(services)
        yield made
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                await stream.aclose()


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Path | None]:
    """The state directory on a file system of its own that can be filled; None where we may not mount one."""
    if os.geteuid() != 0:
        yield None
        return
    await trio.Path(folder).mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=16M,mode=700", "tmpfs", str(folder)]
    mounted = await trio.run_process(command, check=False, capture_stderr=True)
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            with trio.CancelScope(shield=True):
                await trio.run_process(["umount", "--lazy", str(folder)])
