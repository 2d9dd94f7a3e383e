"""Starts one program as a child process, waits until it says that it answers, ends it. It must not know which program.

The child writes one line of JSON to the descriptor READY_FD when it is ready, and ends when its standard input ends: we
hold the other end of that pipe, so that it dies with us however we die.
"""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_WITHIN = 30.0  # seconds; both servers need about one, a loaded machine with two cores several
STOP_WITHIN = 5.0  # seconds from SIGTERM to SIGKILL


class UnavailableError(Exception):
    """This machine cannot run the server (no node, no registry, no Django): nothing is known about our code."""


@dataclass(frozen=True)
class Child:
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        """Ends it by its pid, with SIGKILL where SIGTERM is not enough. Doing so twice is fine."""
        assert self.process.stdin is not None
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_WITHIN)
        self.process.stdin.close()


@contextlib.contextmanager
def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[tuple[Child, dict[str, Any]]]:
    """The running child and what its ready line said; all that it prints is appended to `log`.

    Raises RuntimeError with the end of the log when it dies, or says nothing for READY_WITHIN."""
    ready, child_end = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env, "READY_FD": str(child_end)},
                pass_fds=(child_end,),
                start_new_session=True,  # a Ctrl-C at the terminal is for pytest, which then ends us in order
            )
        os.close(child_end)
        child_end = -1
        child = Child(process)
        try:
            yield child, _ready_line(ready, argv, log)
        finally:
            child.stop()
    finally:
        os.close(ready)
        if child_end != -1:
            os.close(child_end)


def _ready_line(ready: int, argv: Sequence[str], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + READY_WITHIN
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise RuntimeError(f"{argv} was not ready within {READY_WITHIN} s:\n{_tail(log)}")
        read = os.read(ready, 65536)
        if not read:
            raise RuntimeError(f"{argv} died before it was ready:\n{_tail(log)}")
        line += read
    said: dict[str, Any] = json.loads(line)
    return said


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
