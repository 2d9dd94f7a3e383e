# One life of a fleet: hosts, a model of etcd, and model providers, on one virtual time. events.py decides what happens,
# witness.py what must be true.
from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from math import inf
from pathlib import Path
from random import Random

import trio

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.fleet.etcd import Pair, Put, Transacted
from brokerd.core.fleet.layout import FleetKeys
from tests.stress.simulation import providers as models
from tests.stress.simulation.clock import Clock
from tests.stress.simulation.fleet.events import happen
from tests.stress.simulation.fleet.host import Host, is_verbose
from tests.stress.simulation.fleet.model_etcd import ModelCluster
from tests.stress.simulation.fleet.model_server import Server
from tests.stress.simulation.fleet.pauses import Pauses
from tests.stress.simulation.fleet.recovery import adopt_until_done, heal, last_check
from tests.stress.simulation.fleet.schedule import GRANTS, ISSUED, Schedule
from tests.stress.simulation.fleet.stores import FLEET
from tests.stress.simulation.fleet.witness import Witness


@functools.lru_cache(maxsize=64)
def _loaded(path: Path, text: str) -> Configuration:
    path.write_text(text)
    path.chmod(0o600)
    return load(path)


class World:
    """A schedule at work. `run` is the main task of a trio of its own. `history`: what happened, in lines."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule, self.folder, self.grants = schedule, folder, tuple(GRANTS)
        self.clock = Clock()  # which is right
        self.random = Random(f"{schedule.seed} world")
        self.history: list[str] = []
        self.over = trio.Event()
        self.pauses = Pauses()
        self.providers = {
            name: models.Provider(name, setup, self.clock, Random(f"{schedule.seed} {name}"))
            for name, setup in schedule.setup.providers.items()
        }
        self.laws = self.witness = Witness(self)
        self.hosts: dict[str, Host] = {}
        self.snapshot: Server | None = None
        self.cluster: ModelCluster
        self.killed: set[str] = set()  # grants whose login an administrator has ended
        self.lives = self.crashes = 0
        self.ended = 0.0
        self._keys = FleetKeys(FLEET)
        self._claimed_by: dict[bytes, str] = {}  # values are sealed

    def time(self) -> float:
        return trio.current_time()

    def true(self) -> float:
        return self.clock.true()

    def provider_of(self, grant: str) -> models.Provider:
        return self.providers[GRANTS[grant]]

    def say(self, who: str, what: str) -> None:
        line = f"{trio.current_time():9.3f}  {who:<8} {what}"
        self.history.append(line)
        if is_verbose():
            print(line)

    def outside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run it as nobody's process: it goes on when its sender is stopped or dead."""
        Context().run(self._nursery.start_soon, work)

    def disturbed(self, host: Host, *, ends: bool = True) -> None:
        """Something kept the host from hearing of etcd; `ends`: until now, else from now on."""
        host.calm_since = self.time() if ends and self._is_calm(host) else inf

    def _is_calm(self, host: Host) -> bool:
        link, server = self.cluster.link(host.name), self.cluster
        return host.there is not None and not (link.cut or link.delay or server.down)

    def all_disturbed(self, *, ends: bool = True) -> None:
        for host in self.hosts.values():
            self.disturbed(host, ends=ends)

    def carried_out(
        self, host: str, ended: Transacted, changes: Mapping[bytes, Put | None], before: Mapping[bytes, Pair]
    ) -> None:
        """etcd has carried out a transaction of a host."""
        for key, put in changes.items():
            kind, names = self._keys.kind(key)
            if kind not in ("claim", "record", "journal", "meta") or (names and names[0] not in self.grants):
                continue
            self.say("etcd", f"{ended.revision}: {host} {'puts' if put else 'deletes'} {kind} {' '.join(names[:1])}")
            if put is not None and names:
                had = self._claimed_by.get(key) if kind == "claim" and key in before else None
                self.witness.wrote(host, kind, names[0], ended.revision)
                self.witness.claims_over(host, names[0], had)
                self._claimed_by[key] = host
            if put is not None and kind in ("claim", "record"):
                process = self.hosts[host].process
                if process is not None:
                    process.strikes("claimed" if kind == "claim" else "written")

    def adopt(self, host: str) -> None:
        """An operator agrees there to what etcd has now."""
        self.outside(functools.partial(adopt_until_done, self, host))

    def configuration(self) -> Configuration:
        parts = []
        for name, setup in self.schedule.setup.providers.items():
            lines = [f"[providers.{name}]", 'dialect = "oauth2"', f'token_url = "https://{name}.test/token"']
            lines += [f'revocation_url = "https://{name}.test/revoke"', f"reuse_grace = {setup.grace}"]
            parts.append("\n".join(lines))
        for grant, provider in GRANTS.items():
            kind = "client_credentials" if grant in ISSUED else "refresh_token"
            lines = [f"[grants.{grant}]", f'provider = "{provider}"', f'grant_type = "{kind}"']
            lines += ['client_auth = "client_secret_post"']
            lines += [f'credentials = {{ client_id = "{grant}", client_secret = "test-only-secret" }}']
            parts.append("\n".join(lines))
        return _loaded(self.folder / "brokerd.toml", "\n".join(parts))

    # -- running

    async def run(self) -> None:
        try:
            self.pauses.install()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._begin()
                nursery.start_soon(self._happen)
                await self.over.wait()
                self.pauses.stopped.clear()
                for host in self.hosts.values():
                    if host.process is not None:
                        host.process.crash()
                nursery.cancel_scope.cancel()
        finally:
            self.ended = self.clock.true()

    async def _begin(self) -> None:
        setup, seed = self.schedule.setup, self.schedule.seed
        self.cluster = ModelCluster(self._nursery, Random(f"{seed} etcd"), latency=setup.latency)
        self.cluster.server.keeps_deletes = setup.keeps_deletes
        self.cluster.carried_out = self.carried_out
        self.cluster.disconnected = lambda host: self.disturbed(self.hosts[host])
        for name, off in zip(setup.hosts, setup.offsets, strict=True):
            self.hosts[name] = host = Host(self, name, off, self.random)
            self.outside(host.run)

    async def _happen(self) -> None:
        try:
            for event in self.schedule.events:
                await trio.sleep_until(event.at)
                self.say("event", f"{event.what} {' '.join(f'{key}={value}' for key, value in event.values.items())}")
                happen(self, event)
            await trio.sleep_until(self.schedule.horizon)
            await heal(self)
            await last_check(self)
        finally:
            self.over.set()
