# One run, inside its namespaces: builds network, etcd, provider and hosts, plays the faults, heals everything, and
# waits until every grant has a token again. What was seen is in the folder of histories; the checker reads it later.
from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio
from brokerd_client.blocking import Broker
from brokerd_client.errors import BrokerError

from brokerd.edge.store import key_file
from tests.forked import ROOT, die_with_parent
from tests.stress.fleet_torture import certificates, configuration
from tests.stress.fleet_torture.cluster import NODES, Cluster, address
from tests.stress.fleet_torture.configuration import ANSWER_TIMEOUT, CONFIGURED_GRACE, Grant, Sharing
from tests.stress.fleet_torture.faults import Faults
from tests.stress.fleet_torture.history import History
from tests.stress.fleet_torture.hosts import Host, Reading
from tests.stress.fleet_torture.network import NETS, STORE, WEB, Network, inside
from tests.stress.fleet_torture.provider import HTTP, HTTPS

HOSTS = 5
OFFSETS = (-60.0, 60.0, 0.0, -25.0, 35.0)  # seconds by which each host's wall clock is wrong
PROVIDER = f"{NETS[WEB]}.1"
NOTICED = 3.0  # seconds until a person logs in again


class Run:
    def __init__(self, folder: Path, seed: int, number: int, sharing: Sharing, pace: float, calm: float) -> None:
        self.folder, self.histories = folder, folder / "histories"
        self.histories.mkdir()
        self.seed, self.sharing, self.pace, self.calm = seed, sharing, pace, calm
        self.history = History(self.histories / "test.jsonl")
        self.network = Network()
        names = [f"web-{each}" for each in range(1, HOSTS + 1)]
        self.grants = configuration.grants(number, seed, names, sharing)
        self.network.machine("provider", 1, (WEB,))
        self.certificates = {"etcd": folder / "etcd-tls", "provider": folder / "provider-tls"}
        nodes = {node: [address(STORE, node), f"{NETS['peers']}.{NODES[node]}"] for node in NODES}
        certificates.make(self.certificates["etcd"], nodes, ["client"])
        certificates.make(self.certificates["provider"], {"provider": [PROVIDER]}, [])
        self.cluster = Cluster(self.network, folder / "etcd", self.certificates["etcd"]) if sharing == "store" else None
        self.hosts = [
            Host(self.network, folder / name, index + 1, OFFSETS[index], self.history)
            for index, name in enumerate(names)
        ]

    async def play(self, minutes: float) -> None:
        self._start_provider()
        await self.until_provider_serves()
        if self.cluster is not None:
            await self.cluster.start()
        self._configure()
        self.history.say(
            "run",
            sharing=self.sharing,
            seed=self.seed,
            hosts=[each.name for each in self.hosts],
            nodes=list(NODES) if self.cluster else [],
            grants={each.name: list(each.hosts) for each in self.grants},
            graces={each.name: CONFIGURED_GRACE for each in self.grants if each.kind == "graceful"},
            lives={each.name: each.life for each in self.grants},
            answer_timeout=ANSWER_TIMEOUT,
            recovers_within=self.calm,
        )
        for host in self.hosts:
            await host.start()
        say(f"{len(self.hosts)} hosts, {len(self.grants)} grants")
        for grant in self.grants:
            if grant.kind != "password":
                await self._log_in(grant)
        for host in self.hosts:
            self._read(host)
        await trio.sleep(5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_in_again)
            nursery.start_soon(self._look_after)
            await self._ask("/faults", faulty=True)
            faults = Faults(self.network, self.cluster, self.hosts, self.history, self._read, self._ask)
            await faults.run(minutes, random.Random(f"{self.seed} faults"), say)
            await self._ask("/faults", faulty=False)
            self.history.say("calm")
            say("everything is healed")
            await self._until_calm()
            nursery.cancel_scope.cancel()
        self.history.say("end")
        await self._end()

    # -- building

    def _start_provider(self) -> None:
        config = self.folder / "provider.json"
        config.write_text(
            json.dumps(
                {
                    "address": PROVIDER,
                    "seed": self.seed,
                    "lives": {each.name: each.life for each in self.grants},
                    "graces": configuration.graces(self.grants),
                    "names": {each.address: each.name for each in self.hosts},
                    "history": str(self.histories / "provider.jsonl"),
                    "certificate": str(self.certificates["provider"] / "provider.pem"),
                    "key": str(self.certificates["provider"] / "provider.key"),
                }
            )
        )
        command = [sys.executable, "-m", "tests.stress.fleet_torture.provider", str(config)]
        with (self.folder / "provider.log").open("ab") as output:
            self._provider = subprocess.Popen(
                [*inside("provider"), *command], cwd=ROOT, stdout=output, stderr=output, preexec_fn=die_with_parent
            )

    async def until_provider_serves(self) -> None:
        with trio.fail_after(20):
            while True:
                with contextlib.suppress(OSError):
                    await self._ask("/lost")
                    return
                await trio.sleep(0.05)

    def _configure(self) -> None:
        key = self.folder / "key"
        key_file.create(key)
        url = f"https://{PROVIDER}:{HTTPS}/token"
        for host in self.hosts:
            host.config.touch(0o600)
            text = configuration.written(host.name, host.folder, key, url, self.certificates, self.grants, self.sharing)
            host.config.write_text(text)

    def _read(self, host: Host) -> None:
        grants = {each.known_as: each.name for each in self.grants if host.name in each.hosts}
        host.read(Reading(grants, (PROVIDER, HTTP), self.pace), self.histories)

    # -- while it runs

    async def _log_in(self, grant: Grant) -> bool:
        """As a person would, on a host that works: a new login at the provider, and its refresh token for brokerd."""
        hosts = [each for each in self.hosts if each.name in grant.hosts and each.runs and not each.busy]
        if not hosts:
            return False
        token = (await self._ask("/login", grant=grant.name))["refresh_token"]
        for host in hosts:
            try:
                await _call(host, "import", grant=grant.known_as, refresh_token=token, wait=0.0)
            except BrokerError as error:
                self.history.say("login failed", grant=grant.name, host=host.name, words=error.message)
                if error.code in ("unavailable", "no_daemon"):
                    continue  # the next person tries the next host
            else:
                if self.sharing != "logins":
                    return True
        return self.sharing == "logins"

    async def _log_in_again(self) -> None:
        """Whoever lost a login logs in again."""
        by_name = {each.name: each for each in self.grants}
        owed: set[str] = set()
        while True:
            await trio.sleep(NOTICED)
            for name in {*await self._ask("/lost"), *owed}:
                done = by_name[name].kind == "password" or await self._log_in(by_name[name])
                (owed.discard if done else owed.add)(name)

    async def _look_after(self) -> None:
        """Is there anybody who ended without being asked?"""
        said: set[str] = set()
        while True:
            for host in self.hosts:
                if not host.busy and (status := host.ended_by_itself()) is not None and host.name not in said:
                    said.add(host.name)
                    self.history.say("ended by itself", host=host.name, status=status)
                    say(f"{host.name} ended by itself with {status}")
                if not host.busy and not host.reads:
                    raise RuntimeError(f"the reader of {host.name} ended: see {host.folder / 'reader.log'}")
            assert self._provider.poll() is None, "the provider ended"
            await trio.sleep(0.5)

    async def _until_calm(self) -> None:
        """Until every grant was seen with a living token on each of its hosts."""
        missing = {(host, each.name) for each in self.grants for host in each.hosts}
        places = {host.name: self._size(host) for host in self.hosts}
        with trio.move_on_after(self.calm + 10.0):
            while missing:
                await trio.sleep(2.0)
                for host in self.hosts:
                    with (self.histories / f"reader-{host.name}.jsonl").open("rb") as file:
                        file.seek(places[host.name])
                        whole = file.read().rpartition(b"\n")[0]
                    places[host.name] += len(whole) + bool(whole)
                    for line in map(json.loads, whole.splitlines()):
                        if line.get("alive"):
                            missing.discard((host.name, line["grant"]))

    def _size(self, host: Host) -> int:
        return (self.histories / f"reader-{host.name}.jsonl").stat().st_size

    async def _ask(self, target: str, /, **body: object) -> Any:
        return await trio.to_thread.run_sync(_ask, target, json.dumps(body))

    async def _end(self) -> None:
        for host in self.hosts:
            host.stop_reader()
        async with trio.open_nursery() as nursery:
            for host in self.hosts:
                nursery.start_soon(host.stop)
        for host in self.hosts:
            if (faults := host.log.read_text(errors="replace").count("Traceback")) > 0:
                self.history.say("traceback", host=host.name, times=faults)
        self._provider.kill()
        self._provider.wait()


def _ask(target: str, body: str) -> Any:
    connection = http.client.HTTPConnection(PROVIDER, HTTP, timeout=20)
    try:
        connection.request("POST", target, body.encode())
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


async def _call(host: Host, method: str, /, **params: object) -> Any:
    def ask() -> Any:
        with Broker(host.socket, timeout=10.0) as broker:
            return broker.call(method, **params)

    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    made = argparse.ArgumentParser()
    made.add_argument("folder", type=Path)
    made.add_argument("--minutes", type=float, required=True)
    made.add_argument("--grants", type=int, required=True)
    made.add_argument("--seed", type=int, required=True)
    made.add_argument("--pace", type=float, required=True)
    made.add_argument("--calm", type=float, required=True)
    made.add_argument("--sharing", required=True)
    arguments = made.parse_args()
    os.umask(0o077)
    run = Run(arguments.folder, arguments.seed, arguments.grants, arguments.sharing, arguments.pace, arguments.calm)
    trio.run(run.play, arguments.minutes)


if __name__ == "__main__":
    main()
