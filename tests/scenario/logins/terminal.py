# A real brokerctl at a pipe or a pseudo-terminal, for a test that reads what it says and types what a person would.
from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from tests.forked import BROKERCTL, fork_server

WITHIN = 30.0  # seconds for anything that is waited for
DROPPED = ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION")  # what would change how it talks


class Terminal:
    """`said` is all that it has said so far, stdout and stderr together, as it came."""

    def __init__(self, socket: Path, words: Sequence[str], *, is_tty: bool, environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in DROPPED}
        settings = {"BROKERD_SOCKET": str(socket), "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **environment}
        if is_tty:
            self._ours, its = pty.openpty()
            its_input = its
        else:
            self._ours, its = os.pipe()
            its_input, self._input = os.pipe()
        self._process = fork_server(BROKERCTL)(words, its, input=its_input, environment={**inherited, **settings})
        for each in {its, its_input}:
            os.close(each)
        if is_tty:
            self._input = os.dup(self._ours)
        os.set_blocking(self._ours, False)
        self.said = ""
        self._is_over = False
        self._read_to = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    async def until(self, text: str) -> str:
        """Wait until it has said something, and return all that it has said."""
        with trio.move_on_after(WITHIN):
            while text not in self.said:
                if not await self._more():
                    break
        assert text in self.said, f"it never said {text!r}: {self.said}"
        return self.said

    async def json(self) -> dict[str, Any]:
        """The next line, of --json."""
        with trio.fail_after(WITHIN):
            while "\n" not in self.said[self._read_to :]:
                assert await self._more(), f"it ended: {self.said}"
        end = self.said.index("\n", self._read_to)
        line, self._read_to = self.said[self._read_to : end], end + 1
        found: dict[str, Any] = json.loads(line)
        return found

    def type(self, text: str) -> None:
        os.write(self._input, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.kill(self._process.pid, signal.SIGINT)

    async def end(self) -> int:
        """Wait for its end; the exit status."""
        with trio.fail_after(WITHIN):
            while await self._more():
                pass
            await trio.lowlevel.wait_readable(self._process.end)
        return self._process.wait()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process.end, signal.SIGKILL)
        for each in (self._ours, self._input, self._process.end):
            os.close(each)

    async def _more(self) -> bool:
        """Read what comes next; false at the end."""
        while not self._is_over:
            try:
                data = os.read(self._ours, 65536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._ours)
                continue
            except OSError:  # a pseudo-terminal whose other end is closed
                data = b""
            self._is_over = not data
            self.said += data.decode(errors="replace")
            return bool(data)
        return False
