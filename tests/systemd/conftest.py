"""One box for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.announced import did_not_run
from tests.systemd.box import Box, missing
from tests.systemd.installation import installed


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if (reason := missing()) is not None:
        did_not_run("SYSTEMD TESTS", reason)
    with installed(tmp_path_factory.mktemp("box")) as made:
        yield made
