from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.client.daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    path = tmp_path / "brokerd.sock"
    monkeypatch.setenv("BROKERD_SOCKET", str(path))
    with Daemon(path) as daemon:
        yield daemon
