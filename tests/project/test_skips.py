# What could not run says so at the end, also where the test that skips runs in a nursery.
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIPS = """
import trio
from tests.did_not_run import did_not_run

async def test_in_a_nursery() -> None:
    async with trio.open_nursery():
        did_not_run("THE MOON", "it is not installed")

def test_outside() -> None:
    did_not_run("THE SUN", "it is too hot")
"""


def test_what_did_not_run_is_listed(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", ROOT / "pyproject.toml", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in done.stdout.splitlines() if " DID NOT RUN: " in line and not line.startswith("SKIPPED")]
    assert said == ["THE MOON DID NOT RUN: it is not installed", "THE SUN DID NOT RUN: it is too hot"], done.stdout
