"""A brokerd for each test that asks for one, and what tests that act as other users need."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.scenario.daemon.callers import Api, User
from tests.scenario.daemon.harness import Brokerd, Serving, remove

LINES = 100  # of the log, shown where a test fails


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path (a socket's has 107 bytes at most) that other users can pass through."""
    path = Path(tempfile.mkdtemp(prefix="brokerd-"))
    path.chmod(0o711)
    yield path
    remove(path)


@pytest.fixture
async def brokerd(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Brokerd]:
    """An installation without a configuration; not started. What it logged is shown where the test fails."""
    made = Brokerd(folder, nursery)
    yield made
    try:
        with trio.CancelScope(shield=True):
            await made.close()
    finally:
        lines = [line for line in made.log.splitlines() if "event=token_fetched" not in line]
        print("\n".join(lines[-LINES:]))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Api() as made:
        yield made


@pytest.fixture
def serving(nursery: trio.Nursery) -> Serving:
    return Serving(nursery)


@pytest.fixture
def as_root(request: pytest.FixtureRequest) -> None:
    """For tests that act as other users or mount; they are announced at the end where they could not run."""
    if os.geteuid() != 0:
        did_not_run(request.node.name, "it needs root")


@pytest.fixture
def other_user(as_root: None) -> User:
    """A user whom nobody knows."""
    return User(60_900, 60_900)
