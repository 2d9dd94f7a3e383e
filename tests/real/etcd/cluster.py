"""A real etcd cluster on loopback, for tests: three servers with TLS, whose processes can be killed and paused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
import trustme

from brokerd.core.secret import Secret
from brokerd.edge.http.connection import HttpSettings
from tests.did_not_run import did_not_run
from tests.forked import die_with_parent
from tests.free_port import free_port
from tests.waiting import pauses

WITHIN = 30.0  # seconds
LOOPBACK = "127.0.0.1"
SIZE = 3
Said = subprocess.CompletedProcess[bytes]


def needs_etcd() -> str:
    """The path of etcd."""
    found = shutil.which("etcd")
    if found is None:
        words = "etcd is not installed (Debian: etcd-server)"
        did_not_run("THE TESTS WITH A REAL ETCD", words, required=os.environ.get("BROKERD_REQUIRE_REAL") == "1")
    return found


class Cluster:
    """Servers are counted from 0. `folder` has their data, certificates and logs. `mutual`: clients must show a
    certificate. What is not async blocks; it takes milliseconds."""

    def __init__(self, folder: Path, *, mutual: bool = False, flags: tuple[str, ...] = ()) -> None:
        self._program = needs_etcd()
        self._folder = folder
        self._mutual = mutual
        self._flags = flags
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports: list[tuple[int, int]] = []
        self._authority = trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self.cert_file, self.key_file = self.certified("client", "client.test")
        self.certified("server", LOOPBACK, "localhost")
        self._context = ssl.create_default_context(cafile=self.ca_file)
        self._context.load_cert_chain(self.cert_file, self.key_file)

    @property
    def urls(self) -> list[str]:
        return [f"https://{LOOPBACK}:{port}" for port, _ in self._ports]

    @property
    def settings(self) -> HttpSettings:
        certificate = (self.cert_file, self.key_file) if self._mutual else (None, None)
        return HttpSettings(self.ca_file, *certificate, proxy=Secret(""))

    def certified(self, name: str, *names: str, common_name: str | None = None) -> tuple[Path, Path]:
        """A certificate of the cluster's authority, and its key."""
        certificate = self._authority.issue_cert(*names, common_name=common_name)
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.cert_chain_pems[0].write_to_path(str(paths[0]))
        certificate.private_key_pem.write_to_path(str(paths[1]))
        return paths

    def start(self) -> None:
        """Waits until all servers have a leader."""
        for last_try in (False, False, True):
            self._ports = free_ports()
            for number in range(SIZE):
                self._run(number)
            with contextlib.suppress(_PortTaken):
                for number in range(SIZE):
                    self._until_healthy(number)
                return
            assert not last_try, "no free ports were found three times"
            self.stop()

    def stop(self) -> None:
        for number in list(self._processes):
            self.kill(number)
        for number in range(SIZE):
            shutil.rmtree(self.data(number), ignore_errors=True)

    def pid(self, number: int) -> int:
        return self._processes[number].pid

    def is_up(self, number: int) -> bool:
        return number in self._processes and self._processes[number].poll() is None

    def name(self, number: int) -> str:
        return f"n{number}"

    def peer_url(self, number: int) -> str:
        return f"https://{LOOPBACK}:{self._ports[number][1]}"

    @property
    def members(self) -> str:
        """As --initial-cluster takes them."""
        return ",".join(f"{self.name(each)}={self.peer_url(each)}" for each in range(SIZE))

    def data(self, number: int) -> Path:
        return self._folder / str(number)

    async def etcdctl(self, *words: str, server: int | None = None, stdin: bytes = b"") -> Said:
        """As docs/fleet.md has it. `server`: only that one is asked."""
        if shutil.which("etcdctl") is None:
            reason, required = "etcdctl is not installed (Debian: etcd-client)", "BROKERD_REQUIRE_REAL" in os.environ
            did_not_run("THE COMMANDS OF docs/fleet.md AT ETCD", reason, required=required)
        urls = self.urls if server is None else [self.urls[server]]
        command = ["etcdctl", f"--endpoints={','.join(urls)}", f"--cacert={self.ca_file}", *words]
        environ = {**os.environ, "ETCDCTL_API": "3"}
        return await trio.run_process(
            command, stdin=stdin, env=environ, capture_stdout=True, capture_stderr=True, check=False
        )

    def kill(self, number: int) -> None:
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def pause(self, number: int) -> None:
        """Returns when all of its threads have stopped."""
        pid = self.pid(number)
        os.kill(pid, signal.SIGSTOP)
        for pause in pauses():
            states = [
                each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")
            ]
            if set(states) == {"T"}:
                return
            time.sleep(pause)

    def resume(self, number: int) -> None:
        os.kill(self.pid(number), signal.SIGCONT)

    async def revive(self, number: int) -> None:
        """Start it again, and wait until it has a leader."""
        self._run(number)
        await trio.to_thread.run_sync(self._until_healthy, number)

    async def repair(self) -> None:
        """Start and resume all servers, and wait until all have the same leader."""
        for number in range(SIZE):
            if self.is_up(number):
                self.resume(number)
            else:
                self._run(number)
        for number in range(SIZE):
            await trio.to_thread.run_sync(self._until_healthy, number)

    async def leader(self) -> int:
        """Which server leads, once one does."""
        with trio.fail_after(WITHIN):
            for pause in pauses():
                for number in range(SIZE):
                    if self.is_up(number) and await trio.to_thread.run_sync(self._leads, number):
                        return number
                await trio.sleep(pause)
        raise AssertionError("unreachable")

    async def compact(self, revision: int) -> None:
        await self.admin("/v3/kv/compaction", {"revision": str(revision), "physical": True})

    async def admin(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """What the first server that is up answers. Raises OSError."""
        number = next(each for each in range(SIZE) if self.is_up(each))
        return await trio.to_thread.run_sync(lambda: self.ask(number, path, body, token))

    def ask(self, number: int, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Blocks. Raises OSError."""
        headers = {"Authorization": token} if token else {}
        request = urllib.request.Request(self.urls[number] + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=5, context=self._context) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    async def root(self) -> str:
        """A token of root, where users are required."""
        found = await self.admin("/v3/auth/authenticate", {"name": "root", "password": "root"})
        return str(found["token"])

    async def require_users(self, user: str, password: str, prefix: bytes) -> None:
        """Turn authentication on, with a user who may do all below a prefix, and root (password "root")."""
        text = b64encode(prefix).decode(), b64encode(prefix[:-1] + bytes([prefix[-1] + 1])).decode()
        permission = {"permType": "READWRITE", "key": text[0], "range_end": text[1]}
        for path, body in (
            ("user/add", {"name": "root", "password": "root"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("role/add", {"name": "fleet"}),
            ("role/grant", {"name": "fleet", "perm": permission}),
            ("user/add", {"name": user, "password": password}),
            ("user/grant", {"user": user, "role": "fleet"}),
            ("enable", {}),
        ):
            await self.admin(f"/v3/auth/{path}", dict(body))

    def _leads(self, number: int) -> bool:
        with contextlib.suppress(OSError, ValueError):
            status = self.ask(number, "/v3/maintenance/status", {})
            return bool(status.get("leader")) and status["leader"] == status["header"]["member_id"]
        return False

    def _until_healthy(self, number: int) -> None:
        ends = time.monotonic() + WITHIN
        for pause in pauses():
            if not self.is_up(number):
                said = self._log(number).read_text()
                if "address already in use" in said:
                    raise _PortTaken
                raise AssertionError(f"etcd has ended:\n{said[-2000:]}")
            with contextlib.suppress(OSError):
                health = urllib.request.Request(self.urls[number] + "/health")
                with urllib.request.urlopen(health, timeout=2, context=self._context) as answer:
                    if json.load(answer)["health"] == "true":
                        return
            assert time.monotonic() < ends, f"etcd is not healthy:\n{self._log(number).read_text()[-2000:]}"
            time.sleep(pause)

    def _log(self, number: int) -> Path:
        return self._folder / f"{number}.log"

    def _run(self, number: int) -> None:
        client, _ = self._ports[number]
        certificate = self._folder / "server.pem", self._folder / "server.key"
        # Of 3.4 --trusted-ca-file alone demands certificates of clients; for a gateway that dials its own server with
        # the server's certificate that is no obstacle.
        mutual = (f"--trusted-ca-file={self.ca_file}", "--client-cert-auth") if self._mutual else ()
        command = [
            self._program,
            *(f"--name={self.name(number)}", f"--data-dir={self.data(number)}", "--initial-cluster-state=new"),
            *(f"--{each}-client-urls=https://{LOOPBACK}:{client}" for each in ("listen", "advertise")),
            *(f"--{each}-peer-urls={self.peer_url(number)}" for each in ("listen", "initial-advertise")),
            f"--initial-cluster={self.members}",
            f"--initial-cluster-token={self._folder}",
            *(f"--cert-file={certificate[0]}", f"--key-file={certificate[1]}", *mutual),
            *(f"--peer-cert-file={certificate[0]}", f"--peer-key-file={certificate[1]}"),
            *(f"--peer-trusted-ca-file={self.ca_file}", "--peer-client-cert-auth"),
            *("--unsafe-no-fsync", "--enable-grpc-gateway", "--logger=zap", "--log-outputs=stderr", "--log-level=warn"),
            *self._flags,
        ]
        with self._log(number).open("wb") as log:
            self._processes[number] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )


class _PortTaken(Exception):
    pass


def free_ports() -> list[tuple[int, int]]:
    """A pair for each server: etcd must know the ports of the others before it starts."""
    ports = set[int]()
    while len(ports) < 2 * SIZE:
        ports.add(free_port())
    found = list(ports)
    return list(zip(found[:SIZE], found[SIZE:], strict=True))


@contextlib.contextmanager
def running(folder: Path, **more: Any) -> Iterator[Cluster]:
    made = Cluster(folder, **more)
    try:
        made.start()
        yield made
    finally:
        made.stop()
