# `brokerctl files` as a process of its own, forked so that it starts quickly; started, killed and reloaded by a test.
from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from tests.forked import BROKERCTL, Forked, fork_server
from tests.scenario.daemon.harness import ENDS_WITHIN, Brokerd, Executed, Table, toml, until

# Says how often it ran and what it found: time and contents, a line each.
ON_CHANGE = """\
import json, pathlib, sys, time
file, told = map(pathlib.Path, sys.argv[1:])
held = file.read_text() if file.exists() else None
with told.open("a") as log:
    log.write(json.dumps([time.time(), held]) + "\\n")
"""


class Files(Brokerd):
    """Its own folder has FILE.toml and the state; `target` is the folder of the files."""

    def __init__(self, folder: Path, nursery: trio.Nursery, brokerd: Brokerd) -> None:
        super().__init__(folder / "files", nursery)
        self.toml = self.etc / "files.toml"
        self.target = folder / "target"
        self.target.mkdir(mode=0o755)
        self.told = folder / "told"
        self.hook = folder / "on_change.py"
        self.hook.write_text(ON_CHANGE)
        self._of = brokerd

    def arguments(self, *more: str) -> list[str]:
        return ["files", str(self.toml), "--socket", str(self._of.socket), "--state-dir", str(self.state), *more]

    def _begin(self, arguments: list[str], output: int, module: str = "") -> Executed | Forked:
        return fork_server(BROKERCTL)(self.arguments(), output)

    def describe(self, *tables: Mapping[str, object]) -> None:
        """Write FILE.toml: a path without a slash is one in the target folder."""
        lines = []
        for table in tables:
            path = {"path": str(self.target / str(table.get("path", "token")))}
            both: dict[str, object] = {"grant": "app", **table, **path}
            lines.append("[[file]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in both.items()))
        self.write("\n".join(lines), "files.toml")

    def tells(self, name: str = "token") -> Table:
        """An on_change that notes each of its runs."""
        return {"command": [sys.executable, "-S", str(self.hook), str(self.target / name), str(self.told)]}

    @property
    def runs_of_on_change(self) -> list[Any]:
        """Time and contents of each run."""
        if not self.told.exists():
            return []
        return [json.loads(line) for line in self.told.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def text(self, name: str = "token") -> str | None:
        try:
            return (self.target / name).read_text()
        except FileNotFoundError:
            return None

    async def holds(self, text: str | None, name: str = "token", within: float = 10.0) -> None:
        await until(lambda: self.text(name) == text, within)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    async def run(self, *more: str) -> tuple[int, str]:
        """Another `brokerctl files` with further options: exit code, and what it printed."""
        output, its = os.pipe()
        process = fork_server(BROKERCTL)(self.arguments(*more), its)
        os.close(its)
        said = b""
        with trio.fail_after(ENDS_WITHIN):
            async with trio.lowlevel.FdStream(output) as stream:
                async for data in stream:
                    said += data
            await trio.lowlevel.wait_readable(process.end)
        os.close(process.end)
        return process.wait(), said.decode()
