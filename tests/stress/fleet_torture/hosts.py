# A host: a network namespace, its own CLOCK_BOOTTIME, boot id and host name, a wall clock that is wrong, brokerd on it,
# and a reader that asks that brokerd.
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.forked import ROOT, die_with_parent
from tests.stress.fleet_torture.history import History
from tests.stress.fleet_torture.network import NETS, STORE, WEB, Network, inside

READY_WITHIN = 60.0
LOOK = 0.05
AS_HOST = """mount --bind "$1" /proc/sys/kernel/random/boot_id && mount --bind "$2" /etc/machine-id && hostname "$3" &&
shift 3 && exec "$@" """


@dataclass(frozen=True)
class Reading:
    """What a reader needs to know."""

    grants: Mapping[str, str]
    provider: tuple[str, int]
    pace: float


class Host:
    def __init__(self, network: Network, folder: Path, number: int, offset: float, history: History) -> None:
        self.name, self.number, self.offset = f"web-{number}", 10 + number, offset
        self.address = f"{NETS[WEB]}.{self.number}"
        self.folder, self.history = folder, history
        self.socket, self.config, self.log = folder / "sock", folder / "brokerd.toml", folder / "log"
        self.busy = False  # a fault has it
        self._brokerd: subprocess.Popen[bytes] | None = None
        self._reader: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o700)
        network.machine(self.name, self.number, (STORE, WEB))
        (folder / "machine-id").write_text(f"{uuid.UUID(int=random.Random(number).getrandbits(128)).hex}\n")
        self.boots = 0
        self.boot(random.Random(number))

    def boot(self, chance: random.Random) -> None:
        """A new boot: another boot id, and CLOCK_BOOTTIME begins somewhere else."""
        self.boots += 1
        self._boottime = chance.randint(10, 1_000_000)
        (self.folder / "boot-id").write_text(f"{uuid.UUID(int=chance.getrandbits(128), version=4)}\n")

    def _within(self, module: str) -> list[str]:
        """What begins the command of a program of this host."""
        files = [str(self.folder / "boot-id"), str(self.folder / "machine-id")]
        namespaces = ["--mount", "--uts", "--time", "--boottime", str(self._boottime), "--propagation", "private"]
        clock = [sys.executable, "-W", "error", "-m", "tests.stress.fleet_torture.wall_clock", str(self.offset), module]
        return ["unshare", *namespaces, "sh", "-c", AS_HOST, "sh", *files, self.name, *clock]

    # -- brokerd

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        assert self._brokerd is None, f"{self.name} runs already"
        before = self._ready()
        with self.log.open("ab") as output:
            command = [*inside(self.name), *self._within("brokerd.daemon.main"), "--config", str(self.config)]
            self._brokerd = _started(command, output.fileno())
        self.history.say("starting", host=self.name)
        with trio.move_on_after(READY_WITHIN) as scope:
            while self._ready() == before and self.runs:
                await trio.sleep(LOOK)
        if scope.cancelled_caught or not self.runs:
            self.history.say("not ready", host=self.name, status=self._brokerd and self._brokerd.poll())
            return
        self.history.say("started", host=self.name)

    @property
    def runs(self) -> bool:
        return self._brokerd is not None and self._brokerd.poll() is None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self.history.say("paused", host=self.name)
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.history.say("resumed", host=self.name)

    def signal(self, number: signal.Signals) -> None:
        assert self._brokerd is not None
        os.kill(self._brokerd.pid, number)

    async def stop(self) -> None:
        """SIGTERM, and wait for the end as long as brokerd may take."""
        if not self.runs:
            return
        self.signal(signal.SIGTERM)
        with trio.move_on_after(READY_WITHIN):
            while self.runs:
                await trio.sleep(LOOK)
        self._end(signal.SIGKILL)

    def ended_by_itself(self) -> int | None:
        return None if self._brokerd is None else self._brokerd.poll()

    def _end(self, number: signal.Signals) -> None:
        process, self._brokerd = self._brokerd, None
        assert process is not None
        process.send_signal(number)
        process.wait()
        self.history.say("killed", host=self.name)

    def _ready(self) -> int:
        return self.log.read_bytes().count(b"event=ready") if self.log.exists() else 0

    # -- the reader

    def read(self, reading: Reading, histories: Path) -> None:
        """Start its reader, or start it again after another boot."""
        self.stop_reader()
        config = self.folder / "reader.json"
        told = {"grants": reading.grants, "provider": reading.provider, "pace": reading.pace, "host": self.name}
        config.write_text(
            json.dumps({**told, "socket": str(self.socket), "history": str(histories / f"reader-{self.name}.jsonl")})
        )
        with (self.folder / "reader.log").open("ab") as output:
            self._reader = _started([*self._within("tests.stress.fleet_torture.reader"), str(config)], output.fileno())

    def stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.kill()
            self._reader.wait()
            self._reader = None

    @property
    def reads(self) -> bool:
        return self._reader is not None and self._reader.poll() is None


def _started(command: list[str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent
    )
