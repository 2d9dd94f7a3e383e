# What tests of the audit log share: reading it, waiting for lines of a running daemon, and brokerctl audit.
from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from brokerd import ctl
from tests.scenario.daemon.harness import Brokerd, until

Line = dict[str, Any]


def files(brokerd: Brokerd, series: str = "audit") -> list[Path]:
    return sorted((brokerd.state / "audit").glob(f"{series}-*.jsonl"))


def lines(brokerd: Brokerd, series: str = "audit", **fields: object) -> list[Line]:
    """The whole lines of a series in which these fields are so."""
    whole = b"".join(path.read_bytes() for path in files(brokerd, series)).rpartition(b"\n")[0]
    found = [json.loads(line) for line in whole.splitlines()]
    return [line for line in found if all(line.get(name) == value for name, value in fields.items())]


async def written(brokerd: Brokerd, series: str = "audit", **fields: object) -> Line:
    """Wait for such a line."""
    await until(lambda: bool(lines(brokerd, series, **fields)))
    return lines(brokerd, series, **fields)[0]


def brokerctl(brokerd: Brokerd, *arguments: str, said: str = "") -> tuple[int, str]:
    """`brokerctl audit` with this configuration, and that on stdin: exit status, and what an operator reads. In this
    process, which has everything imported."""
    with pytest.MonkeyPatch.context() as patch, io.TextIOWrapper(io.BytesIO(), write_through=True) as output:
        patch.setattr(sys, "argv", ["brokerctl", "audit", *arguments, "--config", str(brokerd.config)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode())))
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", output)
        code = ctl.main()
        assert isinstance(output.buffer, io.BytesIO)
        return code, output.buffer.getvalue().decode()
