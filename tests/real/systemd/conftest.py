"""Boxes for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.did_not_run import did_not_run
from tests.real.systemd.box import Box, missing
from tests.real.systemd.installation import install, unpacked


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """As pip leaves it: the package alone."""
    if (reason := missing()) is not None:
        did_not_run("SYSTEMD TESTS", reason)
    with unpacked(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture(scope="module")
def box(bare: Box) -> Box:
    """Installed, with a grant, and not started."""
    install(bare)
    return bare
