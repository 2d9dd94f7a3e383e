# Programs of ours as processes of their own, forked by server.py. An interpreter's start takes longer than what most
# tests have a program do: tests of the start itself, and all with BROKERD_FULL=1, have a new one.
from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("BROKERD_FULL") == "1"  # nothing is shortened
BROKERCTL = "tests.forked.brokerctl"
LENGTH = struct.Struct("!I")  # of a request
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ForkServer:
    """The process of server.py, one for the whole test run and each module that is started."""

    def __init__(self, module: str) -> None:
        self._control, its = socket.socketpair()
        with its:
            command = [sys.executable, "-W", "error", "-m", "tests.forked.server", module]
            # It ends when we close the socket, or end. A death signal would come when the thread ends that is here now.
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=its.fileno())
        self._answers = self._control.makefile("r")
        self._ended: dict[int, int] = {}
        self._turn = threading.Lock()

    def __call__(
        self,
        arguments: Sequence[str],
        output: int,
        *,
        error: int | None = None,
        input: int | None = None,  # noqa: A002
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> Forked:
        """Start the program with these descriptors. `error` is where `output` is, `input` is empty, and environment
        and folder are the server's, unless they are given."""
        request = json.dumps({"arguments": arguments, "environment": environment, "folder": folder}).encode()
        nothing = os.open(os.devnull, os.O_RDONLY) if input is None else None
        descriptors = [nothing if input is None else input, output, output if error is None else error]
        with self._turn:
            socket.send_fds(self._control, [LENGTH.pack(len(request))], descriptors)
            self._control.sendall(request)
            if nothing is not None:
                os.close(nothing)
            while "status" in (said := json.loads(self._answers.readline())):
                self._ended[said["pid"]] = said["status"]
            forked = Forked(said["pid"], self)
            self._control.sendall(b"\n")
        return forked

    def status(self, pid: int) -> int:
        """The exit status of a program that has ended."""
        with self._turn:
            while pid not in self._ended:
                said = json.loads(self._answers.readline())
                self._ended[said["pid"]] = said["status"]
            return self._ended.pop(pid)

    def close(self) -> None:
        self._answers.close()
        self._control.close()
        self._process.wait()


class Forked:
    """A program that was forked by a server. `end` is readable when it has ended; wait() may be called then."""

    def __init__(self, pid: int, fork_server: ForkServer) -> None:
        self.pid = pid
        self.end = os.pidfd_open(pid)
        self._fork_server = fork_server

    def wait(self) -> int:
        return self._fork_server.status(self.pid)


@functools.cache
def fork_server(module: str) -> ForkServer:
    made = ForkServer(module)
    atexit.register(made.close)
    return made


def die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def brokerctl(
    *words: str | Path,
    input: str | bytes | None = None,  # noqa: A002
    text: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    within: float = 60.0,
) -> subprocess.CompletedProcess[Any]:
    """Run brokerctl to its end, as subprocess.run() does with what these arguments say."""
    arguments, env = [str(each) for each in words], {**(os.environ if env is None else env)}
    given = input.encode() if isinstance(input, str) else input or b""
    if FULL:
        command = [sys.executable, "-W", "error", "-m", "brokerd.ctl", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, env=env, cwd=cwd, timeout=within, check=False)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status, out, err = _forked(arguments, given, env, str(cwd or Path.cwd()), within)
    if text:
        return subprocess.CompletedProcess(arguments, status, out.decode(), err.decode())
    return subprocess.CompletedProcess(arguments, status, out, err)


def _forked(
    arguments: list[str], given: bytes, environment: dict[str, str], folder: str, within: float
) -> tuple[int, bytes, bytes]:
    until = time.monotonic() + within
    file = os.memfd_create("input")
    os.write(file, given)
    os.lseek(file, 0, os.SEEK_SET)
    (out, its_output), (err, its_error) = os.pipe(), os.pipe()
    forked = fork_server(BROKERCTL)(
        arguments, its_output, error=its_error, input=file, environment=environment, folder=folder
    )
    for each in (file, its_output, its_error):
        os.close(each)
    said = {out: b"", err: b"", forked.end: b""}
    with selectors.DefaultSelector() as selector:
        for each in said:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in (found := selector.select(until - time.monotonic())):
                data = os.read(key.fd, 65_536) if key.fd != forked.end else b""
                said[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
            if not found and time.monotonic() > until:
                os.kill(forked.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, within, said[out], said[err])
    return forked.wait(), said[out], said[err]
