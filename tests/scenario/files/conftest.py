"""A daemon with the grant "app", and `brokerctl files` beside it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at
from tests.scenario.files.process import Files
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2

__all__ = ["as_root", "brokerd", "folder", "other_user", "renew", "serving"]


@pytest.fixture
async def provider(brokerd: Brokerd, serving: Serving) -> OAuth2:
    """The daemon runs and has a token."""
    made = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(made)})
    await brokerd.start()
    return made


async def renew(brokerd: Brokerd, provider: OAuth2, times: int = 1) -> str:
    """Bring so many new tokens one after the other to the grant "app", which is IMPORTED; the last one."""
    async with brokerd.caller() as caller:
        for _ in range(times):
            token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
            await caller.call("import", grant="app", refresh_token=token.value)
            value: str = (await caller.call("get", grant="app"))["value"]
    return value


@pytest.fixture
async def imported(brokerd: Brokerd, serving: Serving) -> OAuth2:
    """The daemon runs, and its grant "app" can be renewed as often as a test wants: `renew`."""
    made = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(made)})
    await brokerd.start()
    await renew(brokerd, made)
    return made


@pytest.fixture
async def files(folder: Path, nursery: trio.Nursery, brokerd: Brokerd) -> AsyncIterator[Files]:
    """Not started."""
    made = Files(folder, nursery, brokerd)
    yield made
    try:
        with trio.CancelScope(shield=True):
            await made.close()
    finally:
        print(made.log)
