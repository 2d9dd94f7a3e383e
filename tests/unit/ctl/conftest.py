from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokerd.ctl import main
from tests import forked
from tests.unit.client.daemon import Daemon

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    path = tmp_path / "brokerd.sock"
    monkeypatch.setenv("BROKERD_SOCKET", str(path))
    with Daemon(path) as daemon:
        yield daemon


@pytest.fixture
def brokerctl() -> Run:
    """Runs the real program to its end."""

    return forked.brokerctl


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: half of the time of those that read configurations is their start."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["brokerctl", *words])
        monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal, whatever pytest has
        code = main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def program() -> list[str]:
    """For tests of its start, its end and its streams: an interpreter of its own."""
    return [sys.executable, "-W", "error", "-m", "brokerd.ctl"]
