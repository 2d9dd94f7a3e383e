"""An installation for a full life, and servers around it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.conftest import folder, serving
from tests.scenario.daemon.harness import Serving
from tests.scenario.secrets.world import Installed, World

__all__ = ["folder", "serving"]


@pytest.fixture
async def world(folder: Path, nursery: trio.Nursery, serving: Serving) -> AsyncIterator[World]:
    brokerd = Installed(folder, nursery)
    made = World(brokerd)
    await made.serve(serving)
    yield made
    with trio.CancelScope(shield=True):
        await brokerd.close()
    print(brokerd.log[-20_000:])
