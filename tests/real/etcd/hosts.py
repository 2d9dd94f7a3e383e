# Several brokerds that share their grants through a real etcd, each an installation of its own on this machine.
from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import trio
from brokerd_client.errors import BrokerError

from tests.real.etcd.cluster import Cluster
from tests.scenario.daemon.harness import IMPORTED, Brokerd, Table, at, remove
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2

SCOPES = ("read", "write")
WITHIN = 10.0  # seconds
TICK = 0.01
LINES = 60  # of each host's log, shown where a test fails
_numbers = count()


class Hosts:
    """Of one fleet that no other test has."""

    def __init__(self, cluster: Cluster, provider: OAuth2, folder: Path, nursery: trio.Nursery) -> None:
        self.cluster = cluster
        self.provider = provider
        self.fleet = f"fleet-{next(_numbers)}"
        self._folder = folder
        self._nursery = nursery
        self.provider_settings: dict[str, object] = {}
        self.all: list[Brokerd] = []

    def add(self, *, urls: list[str] | None = None, **store: object) -> Brokerd:
        """One more host, not started. The first one makes the key."""
        name = f"host-{len(self.all)}"
        made = Brokerd(self._folder / name, self._nursery)
        if self.all:
            made.key.write_bytes(self.all[0].key.read_bytes())
        self.all.append(made)
        self.configure(made, urls=urls, **store)
        return made

    def configure(self, host: Brokerd, *, urls: list[str] | None = None, **store: object) -> None:
        provider = at(self.provider, **self.provider_settings)
        host.configure({"app": IMPORTED}, {"oauth2": provider}, store=self.table(host, urls=urls, **store))

    def table(self, host: Brokerd, *, urls: list[str] | None = None, **store: object) -> Table:
        """[store] of that host."""
        shared = {"etcd": urls or self.cluster.urls, "fleet": self.fleet, "name": host.folder.name}
        return {**shared, "ca_file": str(self.cluster.ca_file), **store}

    def alone(self, host: Brokerd) -> None:
        """Its configuration without the fleet."""
        host.configure({"app": IMPORTED}, {"oauth2": at(self.provider, **self.provider_settings)})

    async def started(self, number: int) -> list[Brokerd]:
        hosts = [self.add() for _ in range(number)]
        for host in hosts:
            await host.start()
        return hosts

    async def log_in(self, host: Brokerd) -> str:
        """A login's refresh token, imported on that host. Returns the first access token."""
        await self.bring_login(host)
        return await host.get("app")

    async def bring_login(self, host: Brokerd) -> None:
        token = self.provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=SCOPES)
        await host.call("import", grant="app", refresh_token=token.value)

    async def all_serve(self, token: str) -> None:
        """Waits until every host that runs does."""
        for host in self.all:
            if host.runs:
                with trio.fail_after(WITHIN):
                    while await _served(host) != token:
                        await trio.sleep(TICK)


async def _served(host: Brokerd) -> str | None:
    try:
        return await host.get("app", wait=0)
    except BrokerError:
        return None


@contextlib.asynccontextmanager
async def hosts(cluster: Cluster, provider: OAuth2, nursery: trio.Nursery) -> AsyncIterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="brokerd-"))
    made = Hosts(cluster, provider, folder, nursery)
    try:
        yield made
    finally:
        with trio.CancelScope(shield=True):
            for each in made.all:
                print(f"--- {each.folder.name}", *each.log.splitlines()[-LINES:], sep="\n")
                await each.close()
        remove(folder)
