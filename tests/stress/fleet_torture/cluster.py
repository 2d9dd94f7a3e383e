# Three nodes of etcd over TLS with client certificates, each on a machine of its own.
from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import trio

from tests.forked import die_with_parent
from tests.stress.fleet_torture.network import NETS, PEERS, STORE, Network, inside

NODES = {f"n{number}": number for number in (1, 2, 3)}
CLIENTS, PEER_PORT = 2379, 2380
READY_WITHIN = 30.0


def address(net: str, node: str) -> str:
    return f"{NETS[net]}.{NODES[node]}"


def urls() -> list[str]:
    return [f"https://{address(STORE, node)}:{CLIENTS}" for node in NODES]


class Cluster:
    def __init__(self, network: Network, folder: Path, certificates: Path) -> None:
        self.folder, self.certificates = folder, certificates
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tls = ssl.create_default_context(cafile=certificates / "ca.pem")
        self._tls.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        folder.mkdir()
        for node, number in NODES.items():
            network.machine(node, number, (PEERS, STORE))

    async def start(self) -> None:
        for node in NODES:
            self.launch(node)
        with trio.fail_after(READY_WITHIN):
            while await self.leader() is None:
                await trio.sleep(0.1)

    def launch(self, node: str) -> None:
        own, client = (
            f"https://{address(PEERS, node)}:{PEER_PORT}",
            f"https://{address(STORE, node)}:{CLIENTS}",
        )
        certificates = self.certificates
        cluster = ",".join(f"{each}=https://{address(PEERS, each)}:{PEER_PORT}" for each in NODES)
        words = {
            "name": node,
            "data-dir": self.folder / node,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": own,
            "initial-advertise-peer-urls": own,
            "initial-cluster": cluster,
            "initial-cluster-state": "new",
            "cert-file": certificates / f"{node}.pem",
            "key-file": certificates / f"{node}.key",
            "trusted-ca-file": certificates / "ca.pem",
            "peer-cert-file": certificates / f"{node}.pem",
            "peer-key-file": certificates / f"{node}.key",
            "peer-trusted-ca-file": certificates / "ca.pem",
            "heartbeat-interval": 100,
            "election-timeout": 1000,
            "log-level": "warn",
            "logger": "zap",
            "log-outputs": self.folder / f"{node}.log",
        }
        flags = ["--client-cert-auth", "--peer-client-cert-auth", "--enable-grpc-gateway"]
        # Kills end processes, never the machine: what is in the page cache is not lost.
        flags.append("--unsafe-no-fsync")
        command = ["etcd", *(f"--{name}={value}" for name, value in words.items()), *flags]
        with (self.folder / f"{node}.out").open("ab") as output:
            self._processes[node] = subprocess.Popen(
                [*inside(node), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def kill(self, node: str) -> None:
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def signal(self, node: str, number: signal.Signals) -> None:
        os.kill(self._processes[node].pid, number)

    async def leader(self) -> str | None:
        """The node that most of the nodes that answer call their leader."""
        said: dict[str, str] = {}  # member id → node
        leaders: list[str] = []

        async def one(node: str) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                status = await trio.to_thread.run_sync(self._status, node)
                said[status["header"]["member_id"]] = node
                leaders.append(status["leader"])

        async with trio.open_nursery() as nursery:
            for node in NODES:
                nursery.start_soon(one, node)
        found = [each for each in leaders if leaders.count(each) * 2 > len(NODES)]
        return said.get(found[0]) if found else None

    def _status(self, node: str) -> Any:
        connection = http.client.HTTPSConnection(address(STORE, node), CLIENTS, timeout=1, context=self._tls)
        try:
            connection.request("POST", "/v3/maintenance/status", b"{}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
