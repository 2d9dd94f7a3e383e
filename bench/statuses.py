# How long `brokerctl status` takes for all grants, as a person sees it: from the command to its last line.
from __future__ import annotations

import statistics
import subprocess
import time

from bench.processes import BIN, Daemon, Failed

TIMES = 5


def status_seconds(daemon: Daemon, number: int) -> float:
    """The median. Raises Failed."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        command = [str(BIN / "brokerctl"), "--socket", str(daemon.socket), "status"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - began)
        if done.returncode or f"{number:,} grants: " not in done.stdout.splitlines()[-1]:
            raise Failed(f"brokerctl status failed: {done.stderr[:200] or done.stdout[-200:]}")
    return statistics.median(took)
