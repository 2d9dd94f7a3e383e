"""The daemon of tests/scenario/daemon, and endpoints to set upon it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.conftest import brokerd, folder, serving
from tests.scenario.hostile.servers import Endpoint
from tests.unit.edge.http.fixtures import CA

__all__ = ["authority", "brokerd", "folder", "listening", "serving"]

Listening = Callable[[Endpoint], Awaitable[Endpoint]]


@pytest.fixture
def authority(folder: Path) -> Path:
    """The file of the only authority that the daemon trusts."""
    path = folder / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def listening(nursery: trio.Nursery) -> Listening:
    """Starts endpoints that run until the test has ended."""

    async def start(endpoint: Endpoint) -> Endpoint:
        await nursery.start(endpoint.run)
        return endpoint

    return start
