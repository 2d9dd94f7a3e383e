# The processes that are measured and those that they need, each started as it would be by anybody; and what the
# kernel says of them.
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack

from bench.load import Load, Measured, ask
from brokerd.edge.store import key_file

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
READY_LONGEST = 60.0  # seconds
END_LONGEST = 15.0  # seconds; law 3 gives the daemon ten
LOOK = 0.002  # seconds between looks at a process that is starting
HELLO = msgpack.packb([0, 0, "hello", []])


class Failed(Exception):
    """The benchmark could not be run; the text says why."""


@contextlib.contextmanager
def process(*command: str, stdin: bytes | None = None, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes, ended with the block."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("ab")) if log else None
        started = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT)
        )
        try:
            if stdin is not None and started.stdin:
                started.stdin.write(stdin)
                started.stdin.close()
            yield started
        finally:
            started.terminate()
            try:
                started.wait(END_LONGEST)
            except subprocess.TimeoutExpired:
                started.kill()


@contextlib.contextmanager
def providers() -> Iterator[Mapping[str, str]]:
    """The project's test providers, with tokens that outlive the benchmark: recipe name -> base URL."""
    with process(sys.executable, "-m", "tests.servers", "--lifetime", "86400") as started:
        assert started.stdout is not None
        yield json.loads(line(started))["providers"]


@dataclass(frozen=True)
class Daemon:
    """A running brokerd. `ready_after`: seconds from its start to its first answer on the socket; `computed`: of these,
    on a processor."""

    process: subprocess.Popen[bytes]
    socket: str
    http_socket: str
    ready_after: float
    computed: float

    def call(self, method: str, **params: object) -> object:
        """One request on a connection of its own."""
        request = msgpack.packb([0, 0, method, [params] if params else []])
        return msgpack.unpackb(ask(self.socket, request))[3]

    @property
    def computes(self) -> float:
        """Seconds that all its threads have computed so far."""
        return _times(self.process.pid)

    @property
    def rss(self) -> float:
        """MB in memory now."""
        return _status(self.process.pid, "VmRSS")

    @property
    def peak(self) -> float:
        """MB in memory at most so far."""
        return _status(self.process.pid, "VmHWM")


@contextlib.contextmanager
def brokerd(folder: Path, grants: str, profile: Path | None = None, **settings: object) -> Iterator[Daemon]:
    """The real daemon on `folder`, whose state it finds there again; `settings`: more of [daemon], `grants`: the
    configuration beyond it. Everybody may connect. `profile`: where bench/sampled.py writes what it saw."""
    config, path, http, log = folder / "brokerd.toml", folder / "s", folder / "h", folder / "log"
    key = folder / "key"
    if not key.exists():
        key_file.create(key)
    config.touch(mode=0o600)
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    config.write_text(
        f'[daemon]\nsocket = "{path}"\nsocket_mode = "0666"\nstate_dir = "{folder}/state"\n'
        f'key = {{ file = "{key}" }}\n{more}[http]\nsocket = "{http}"\n{grants}'
    )
    began = time.perf_counter()
    program = [str(BIN / "brokerd")] if profile is None else [sys.executable, "-m", "bench.sampled", str(profile)]
    with process(*program, "--config", str(config), "--log-level", "warning", log=log) as started:
        while not _answers(str(path)):
            if started.poll() is not None or time.perf_counter() - began > READY_LONGEST:
                raise Failed(f"brokerd did not start: {log.read_text()[-500:]}")
            time.sleep(LOOK)
        ready_after = time.perf_counter() - began
        yield Daemon(started, str(path), str(http), ready_after, _times(started.pid))


@contextlib.contextmanager
def bare(path: str, answer: object) -> Iterator[subprocess.Popen[bytes]]:
    """The yardstick (bench/bare.py), which gives that answer to everybody."""
    with process(sys.executable, "-m", "bench.bare", path, stdin=msgpack.packb(answer)) as started:
        while not _answers(path):
            if started.poll() is not None:
                raise Failed("the bare server did not start")
            time.sleep(LOOK)
        yield started


class Generator:
    """The load's process, for one measurement after the other."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self._process = started
        self.pid = started.pid

    def measure(self, load: Load) -> Measured:
        self.begin(load)
        return self.end()

    def begin(self, load: Load) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> Measured:
        return Measured(**json.loads(line(self._process)))


@contextlib.contextmanager
def generator(*words: object, module: str = "bench.load") -> Iterator[Generator]:
    """`words`: what the module takes; bench.load takes the uid of another user."""
    with process(sys.executable, "-m", module, *map(str, words)) as started:
        yield Generator(started)


def timed(command: Sequence[str]) -> float:
    """How long a whole process takes, in seconds. Raises Failed if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-200:].strip()}")
    return took


def computed(pid: int) -> float:
    """Seconds that the process's first thread, where its event loop is, has computed (proc_pid_schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def computed_by(pids: Sequence[int]) -> float:
    """Seconds that the first threads of these processes have computed."""
    return sum(map(computed, pids))


def _times(pid: int) -> float:
    """Seconds that all threads of the process have computed (proc_pid_stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise Failed(f"the kernel does not say {name}")


def _answers(path: str) -> bool:
    try:
        return bool(ask(path, HELLO))
    except OSError:
        return False


def line(started: subprocess.Popen[bytes]) -> bytes:
    """The next one that the process prints. Raises Failed."""
    assert started.stdout is not None
    if not (line := started.stdout.readline()):
        raise Failed(f"{started.args!r} ended without a word")
    return line
