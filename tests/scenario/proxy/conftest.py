"""A daemon with the grant "app", an upstream, and brokerd-proxy between them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.scenario.proxy.process import Proxy
from tests.scenario.proxy.upstream import Upstream
from tests.servers import OAuth2

__all__ = ["as_root", "brokerd", "folder", "other_user", "serving"]


@dataclass
class World:
    """Everything runs, and "app" has a token."""

    brokerd: Brokerd
    provider: OAuth2
    upstream: Upstream
    proxy: Proxy

    def configure(self, *allow: Table) -> None:
        settings = {"allow": allow, "socket_mode": "0666"}
        self.brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(self.provider)}, **settings)

    async def allow(self, *rules: Table) -> None:
        self.configure(*rules)
        await self.brokerd.call("reload")


@pytest.fixture
async def upstream(folder: Path, nursery: trio.Nursery) -> Upstream:
    made = Upstream(folder)
    await nursery.start(made.run)
    return made


@pytest.fixture
async def world(
    folder: Path, nursery: trio.Nursery, brokerd: Brokerd, serving: Serving, upstream: Upstream
) -> AsyncIterator[World]:
    provider = await serving(OAuth2())
    proxy = Proxy(folder, nursery, brokerd, upstream)
    made = World(brokerd, provider, upstream, proxy)
    made.configure()
    await brokerd.start()
    await proxy.start()
    yield made
    try:
        with trio.CancelScope(shield=True):
            await proxy.close()
    finally:
        print(proxy.log)
