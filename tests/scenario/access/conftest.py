"""One daemon for all these tests. The caller processes of a test are ended after it."""

from collections.abc import Iterator

import pytest

from tests.scenario.access.world import World, world
from tests.scenario.daemon.conftest import as_root

__all__ = ["as_root"]


@pytest.fixture(scope="package")
def one_world() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def here(as_root: None, request: pytest.FixtureRequest) -> Iterator[World]:
    made: World = request.getfixturevalue("one_world")
    yield made
    made.end_processes()
