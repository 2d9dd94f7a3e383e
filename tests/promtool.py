"""promtool, Prometheus' own judge of metrics, rules and configurations (Debian's package prometheus)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.did_not_run import did_not_run


def program(name: str) -> str:
    """The path of prometheus or promtool."""
    found = shutil.which(name)
    if found is None:
        did_not_run(
            "METRICS BESIDE PROMETHEUS", f"{name} is not installed", required="BROKERD_REQUIRE_REAL" in os.environ
        )
    return found


def complaints(*arguments: str | Path, stdin: str | None = None) -> str:
    """What promtool says against it; nothing if all is well."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 and not done.stderr.strip() else done.stdout + done.stderr
