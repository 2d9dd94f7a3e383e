from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving

__all__ = ["as_root", "brokerd", "folder", "other_user", "serving"]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many for this process as it may have: it holds the other end of a thousand connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
