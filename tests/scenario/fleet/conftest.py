# A fleet on virtual time; everything that brokerd says is dropped.
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.scenario.fleet.machines import Fleet, fleet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path) as made:
        yield made
