# Runs a credential helper in this process, as its client does: an operation on argv, a question on stdin.
from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.client.conftest import daemon

__all__ = ["daemon"]

TABLES = """
[[use]]
url = "https://git.example/*"
grant = "git"

[[use]]
url = "https://registry.example:5000/v2/*"
grant = "images"
username = "bot"

[[use]]
url = "https://index.docker.io/v1/*"
grant = "hub"

[[use]]
url = "https://nope.example/*"
grant = "nope"

[[use]]
url = "https://index.example/simple/*"
grant = "index"

[[use]]
url = "http://localhost:5000/*"
grant = "local"
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "helpers.toml"
    path.write_text(TABLES)
    path.chmod(0o600)
    monkeypatch.setenv("BROKERD_HELPERS", str(path))
    return path


@pytest.fixture
def run(helpers: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """run(module, question, *argv): exit code, stdout, stderr."""

    def run(module: ModuleType, question: str | bytes, *argv: str) -> tuple[int, str, str]:
        data = question.encode() if isinstance(question, str) else question
        monkeypatch.setattr(sys, "argv", [module.PROGRAM, *argv])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = module.main()
        found = capfd.readouterr()
        return code, found.out, found.err

    return run
