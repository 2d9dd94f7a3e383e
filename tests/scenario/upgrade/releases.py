# The releases that the tests have: of each, the modules that keep the store, packed as they were released
# (pack_release.py), and run by an interpreter of their own.
from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RELEASED = sorted(HERE.glob("released/*.tar.xz"))  # sorted by version for as long as that has one digit
OLDER_SCHEMA = HERE / "released" / "brokerd-0.2.0.tar.xz"  # the newest release whose schema is the one before today's
BACK = sorted({OLDER_SCHEMA, RELEASED[-1]})  # the releases that one can go back to


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # the Python of Debian 12 has none yet
        opened.extractall(folder)
    return folder


def run_tasks(release: Path, folder: Path, *works: str, limit: Callable[[], None] | None = None) -> Any:
    """Runs the tasks of release_tasks.py with the code in `release`, one after the other. Returns what the last `tell`
    found. Raises AssertionError with the task's words if one fails."""
    environ = {**os.environ, "PYTHONPATH": str(release), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, HERE / "release_tasks.py", folder, *works]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
