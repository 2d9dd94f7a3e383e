# A daemon with a grant for each way to describe a caller, and the processes that ask it: allowed ones and others.
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from brokerd_client.shared_token import CLOSED, SharedTokenReader, _mapped
from brokerd_client.wire import pack_request

from bench.processes import Daemon, brokerd, providers
from tests.scenario.daemon.harness import IX_API_KEY, IX_API_SECRET, toml

APP, OTHER, DYNAMIC = 60_900, 60_901, 61_500  # uids and gids; the last is one of systemd's dynamic users
SPECIAL = 60_950  # a group that a rule names
NOBODY = 65_534
ID, OTHER_ID = "a1" * 32, "b2" * 32  # containers
PATIENCE = 10.0  # seconds for what takes milliseconds
PYTHON = str(Path(sys.executable).resolve())
ACTOR = Path(__file__).with_name("caller_process.py")
CODES = re.compile(rb"unknown_grant|denied|bad_request|unavailable|misconfigured|limit|internal")


class KernelRefused(Exception):
    """What was tried is not even possible."""


class Process:
    """An actor, from its start as root on."""

    def __init__(self, world: World, sock: socket.socket | None = None) -> None:
        self.world = world
        self.sock = sock.dup() if sock else socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(ACTOR), world.daemon.socket, str(self.sock.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.sock.fileno()],
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.number = self.sock.fileno()

    def __getattr__(self, command: str) -> Callable[..., Process]:
        def tell(*arguments: object) -> Process:
            self._line(json.dumps([command, *arguments]))
            if command.startswith("leave"):
                self._process.wait()  # a zombie keeps its number
            assert self._process.stdout is not None
            answer = self._process.stdout.readline().decode().strip()
            if "Operation not permitted" in answer or "Permission denied" in answer:
                raise KernelRefused(answer)
            assert answer == "ok", f"{command}: {answer}"
            if command.startswith("execute"):
                self._becomes(lambda exe: exe != PYTHON)
            return self

        return tell

    def asks(self, grant: str, method: str = "get") -> str:
        """What an answer to that brings."""
        self.send(request(grant, method).hex())
        return self.reply()

    def shell_asks(self, grant: str) -> str:
        """The same after `execute`."""
        self.shell_sends(request(grant))
        return self.reply()

    def shell_sends(self, data: bytes) -> None:
        """The same without waiting for the answer."""
        escaped = "".join(f"\\{byte:03o}" for byte in data)
        self._line(f"printf '{escaped}' >&3")

    def shell_watches(self, grant: str) -> None:
        self.shell_sends(request([grant], "watch"))
        assert self.reply(until=b"token_type") == "token"

    def shares(self, grant: str) -> SharedTokenReader:
        """The memory of a shared token that it asks for. The test has the descriptor, as somebody to whom the process
        gave it."""
        self.send(request(grant, "share").hex())
        made = self._shared()
        assert made is not None
        return made

    def shell_shares(self, grant: str) -> SharedTokenReader:
        """The same after `execute`. The hash of a program that changed in the last 3 s is not believed without a look,
        and so long the program gets no shared token."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.shell_sends(request(grant, "share"))
            if (made := self._shared(required=time.monotonic() > deadline)) is not None:
                return made
            time.sleep(0.1)

    def _shared(self, *, required: bool = True) -> SharedTokenReader | None:
        data, descriptors, _, _ = socket.recv_fds(self.sock, 65_536, 1)
        assert descriptors or not required, data
        if not descriptors:
            return None
        made = SharedTokenReader(_mapped(descriptors[0]), "")
        os.close(descriptors[0])
        return made

    def shell_becomes(self, program: str) -> None:
        """The shell executes another one; it has when this returns."""
        self._line(f"exec {program}")
        self._becomes(lambda exe: exe == program)

    def _becomes(self, right: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not right(str(Path(f"/proc/{self.pid}/exe").readlink())):
            assert time.monotonic() < deadline, "it is still the other program"
            time.sleep(0.001)

    def watches(self, grant: str) -> None:
        self.send(request([grant], "watch").hex())
        assert self.reply(until=b"token_type") == "token"

    def reply(self, until: bytes = b"") -> str:
        """What the next bytes are: "token", the code of an error, "closed", or another "answer"."""
        data = b""
        while not data or until not in data:
            try:
                more = self.sock.recv(65_536)
            except ConnectionResetError:
                more = b""
            if not more:
                break
            data += more
        if b"token_type" in data:
            return "token"
        code = CODES.search(data)
        return code[0].decode() if code else "answer" if data else "closed"

    def close(self) -> None:
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with self._process:
            pass

    def _line(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()


class World:
    """`folder` has the programs that rules name, `cgroups` is a slice for these tests."""

    def __init__(self, folder: Path, cgroups: Path) -> None:
        self.folder, self.cgroups = folder, cgroups
        self.portal, self.evil = self.program("portal"), self.program("evil", b"\0")
        self.daemon: Daemon
        self._processes: list[Process] = []

    def program(self, name: str, more: bytes = b"") -> str:
        """A shell of that name: `more` makes its bytes others."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path("/bin/sh").read_bytes() + more)
        path.chmod(0o755)
        return str(path)

    def process(self, uid: int = 0, *groups: int, sock: socket.socket | None = None, within: str = "") -> Process:
        """A process of that user, in that cgroup below the slice of these tests."""
        made = Process(self, sock)
        self._processes.append(made)
        if within:
            made.enter(self.cgroup(within))
        return made.become(uid, uid, *groups) if uid else made

    def cgroup(self, path: str) -> str:
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def move(self, process: Process, within: str) -> None:
        (Path(self.cgroup(within)) / "cgroup.procs").write_text(str(process.pid))

    def refresh(self, grant: str) -> None:
        """A new token, for those who watch."""
        self.daemon.call("refresh", grant=grant)

    def read_in_the_end(self, reader: SharedTokenReader) -> str:
        """What is in the memory of a shared token once its caller may not read it any more."""
        deadline = time.monotonic() + PATIENCE
        while reader._look().state != CLOSED:
            if time.monotonic() > deadline:
                return "token"
            time.sleep(0.001)
        return "token" if reader.read() is not None or any(reader._memory[76:]) else "closed"

    def end_processes(self) -> None:
        while self._processes:
            self._processes.pop().close()

    def rules(self) -> dict[str, dict[str, Any]]:
        """Who may get the grant of that name."""
        digest = hashlib.sha256(Path(self.portal).read_bytes()).hexdigest()
        return {
            **{key: {"uid": APP} for key in ("uid", "watched-1", "watched-2", "watched-3", "shared")},
            "group": {"gid": SPECIAL},
            "nobody": {"user": "nobody"},
            "exe": {"uid": APP, "exe": self.portal},
            "sha256": {"uid": APP, "sha256": digest},
            "unit": {"unit": "portal.service"},
            "slice": {"slice": self.cgroups.name},
            "user-unit": {"uid": APP, "user_unit": "portal.service"},
            "container": {"container": ID},
        }


def request(grant: object, method: str = "get") -> bytes:
    if method in ("reload", "adopt"):
        return pack_request(1, method, {})
    return pack_request(1, method, {"grants" if isinstance(grant, list) else "grant": grant})


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Needs root and a cgroup file system of version 2 that can be written."""
    folder = Path(tempfile.mkdtemp(prefix="brokerd-"))
    folder.chmod(0o755)
    cgroups = mounted() / f"brokerd{os.getpid()}.slice"
    cgroups.mkdir()
    made = World(folder, cgroups)
    try:
        with providers() as at:
            lines = [f'[providers.ix]\ndialect = "ix-api"\nbase_url = "{at["ix-api"]}"']
            for name, caller in made.rules().items():
                credentials = toml({"api_key": IX_API_KEY, "api_secret": IX_API_SECRET})
                lines.append(f'[grants.{name}]\nprovider = "ix"\ncredentials = {credentials}')
                lines.append(f'[[allow]]\ngrants = ["{name}"]\ncaller = {toml(caller)}')
            (folder / "own").mkdir(mode=0o711)
            with brokerd(folder / "own", "\n".join(lines)) as made.daemon:
                yield made
    finally:
        made.end_processes()
        for below in sorted(cgroups.rglob("*/"), reverse=True):
            if below.is_dir():
                below.rmdir()
        cgroups.rmdir()
        shutil.rmtree(folder)


def mounted() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(target)
    raise FileNotFoundError("no cgroup file system of version 2")
