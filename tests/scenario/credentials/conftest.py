"""brokerd with the socket for credentials, and processes that fetch one as systemd does, each in its own cgroup."""

import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.scenario.access.world import mounted
from tests.scenario.daemon.conftest import as_root, brokerd, folder, serving
from tests.scenario.daemon.harness import FIVE, SOON, Brokerd, Serving, at
from tests.servers import OAuth2
from tests.servers.provider import Gate

__all__ = [
    "Fetching",
    "Units",
    "as_root",
    "brokerd",
    "configure",
    "folder",
    "held_at",
    "serving",
    "units",
    "with_credentials",
]

FETCH = Path(__file__).with_name("fetch.py")
NUMBERS = itertools.count()  # abstract addresses are one space for the whole machine
RULE = {"grants": ["app"], "caller": {"unit": "portal.service"}}


class Fetching:
    """A process that has connected."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._said = b""

    async def line(self, within: float) -> str:
        assert self.process.stdout is not None
        with trio.fail_after(within):
            while b"\n" not in self._said:
                data = await self.process.stdout.receive_some()
                assert data, "it has ended"
                self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    async def credential(self, within: float = SOON) -> bytes:
        return bytes.fromhex(await self.line(within))


class Units:
    """Cgroups named like units of the system's systemd, below a slice of these tests."""

    def __init__(self, root: Path, brokerd: Brokerd) -> None:
        self.root = root
        self.slice = root.name
        self._brokerd = brokerd

    def cgroup(self, path: str) -> str:
        made = self.root / path
        made.mkdir(parents=True, exist_ok=True)
        return str(made)

    def move(self, fetching: Fetching, within: str) -> None:
        Path(self.cgroup(within), "cgroup.procs").write_text(str(fetching.process.pid))

    @asynccontextmanager
    async def fetching(
        self, name: str | bytes | None, within: str | None = "portal.service", **options: Any
    ) -> AsyncIterator[Fetching]:
        """`name`: the address after the random number, or all of it as bytes; None: it binds none. `within`: the
        cgroup."""
        address = b"\0%RANDOM/" + name.encode() if isinstance(name, str) else name or b""
        address = address.replace(b"%RANDOM", b"%x%03x" % (os.getpid(), next(NUMBERS)))
        wanted = {**options, "address": address.hex(), "cgroup": within and self.cgroup(within)}
        command = [sys.executable, "-I", "-S", str(FETCH), str(self._brokerd.credentials_socket), json.dumps(wanted)]
        process = await trio.lowlevel.open_process(command, stdout=-1)
        try:
            made = Fetching(process)
            assert await made.line(SOON) == "connected"
            yield made
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()

    async def credential(
        self, name: str | bytes | None, within: str | None = "portal.service", **options: Any
    ) -> bytes:
        """What the unit finds in the file."""
        async with self.fetching(name, within, **options) as made:
            return await made.credential()


@pytest.fixture
def units(as_root: None, brokerd: Brokerd) -> Iterator[Units]:
    try:
        root = mounted() / f"brokerd-credentials{os.getpid()}.slice"
        root.mkdir()
    except OSError as error:
        did_not_run("CREDENTIALS OF UNITS", f"no cgroup of version 2 can be made here: {error}")
    yield Units(root, brokerd)
    for below in sorted(root.rglob("*/"), reverse=True):
        below.rmdir()
    root.rmdir()


def configure(brokerd: Brokerd, provider: OAuth2, *rules: Any) -> None:
    """The socket for credentials and the grant "app"; without `rules`, portal.service may have it."""
    grants, providers = {"app": FIVE["oauth2"]}, {"oauth2": at(provider)}
    brokerd.configure(grants, providers, allow=rules or (RULE,), credentials=True, socket_mode="0666")


@asynccontextmanager
async def held_at(provider: OAuth2, brokerd: Brokerd) -> AsyncIterator[Gate]:
    """The same, started; the answer of the provider is held until the gate is released."""
    with provider.hold("issue") as gate:
        configure(brokerd, provider)
        await brokerd.start()
        yield gate


async def with_credentials(brokerd: Brokerd, serving: Serving, *rules: Any) -> OAuth2:
    """The same, started, with a provider that answers."""
    provider = await serving(OAuth2())
    configure(brokerd, provider, *rules)
    await brokerd.start()
    return provider
