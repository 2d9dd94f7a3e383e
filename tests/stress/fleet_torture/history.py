# What happened, as lines of JSON: every process appends to a file of its own. Times are CLOCK_MONOTONIC, which all
# processes of the machine share (hosts have their own CLOCK_BOOTTIME and wall clock).
from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class History:
    """One process's file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, what: str, /, *, t: float | None = None, **more: object) -> None:
        line = {"t": time.monotonic() if t is None else t, "what": what, **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read(folder: Path) -> list[Line]:
    """Every line of all files, in the order of time. The last line of a process that was killed may be half a line."""
    lines: list[Line] = []
    for path in sorted(folder.glob("*.jsonl")):
        lines += map(json.loads, path.read_bytes().split(b"\n")[:-1])
    return sorted(lines, key=lambda line: line["t"])
