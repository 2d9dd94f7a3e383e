# One host of a fleet: its clock and its folder, and the processes of brokerd that run there one after the other, each
# joined as in daemon/main.py.
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import structlog
import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.provider import Provider
from brokerd.broker.reload import apply, fingerprints
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.timing.moment import Moment
from brokerd.edge.files.secret_sources import read_secret
from brokerd.telemetry.event_log import EventLog
from tests.stress.simulation.clock import Clock
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.fleet.network import Way
from tests.stress.simulation.fleet.pauses import HOST
from tests.stress.simulation.fleet.stores import HostStore
from tests.stress.simulation.life import _metrics, _told
from tests.stress.simulation.world import Entropy

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.world import World

FAULTLESS = "no fault of our own"
LANDING = 10.0  # as in daemon/main.py


class HostClock(Clock):
    """The clock of one host; `off` is always taken for right."""

    def __init__(self, host: str, off: float, uptime: float) -> None:
        super().__init__()
        self.off, self._host, self._booted = off, host, -uptime
        self.stepped = False

    def now(self) -> Moment:
        return super().now()._replace(boot_id=f"{self._host}-{self.boots}")

    def restart(self) -> None:
        """The machine was booted."""
        off = self.off
        self.reboot(off)
        self.synchronised = True


class Log(EventLog):
    """A fault of brokerd's own breaks a law."""

    def __init__(self, process: Process) -> None:
        super().__init__(structlog.wrap_logger(None, processors=[self._say]), None)
        self._process = process

    def _say(self, _: object, level: str, event: dict[str, object]) -> str:
        name = self._process.host.name
        self._process.world.witness.hold("law 11: no secret is said", "test-only-" not in str(event), str(event))
        words = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        self._process.world.say(name, f"[{level}] {event.get('event')} {words}")
        raise structlog.DropEvent

    def bug(self, what: str, **details: object) -> None:
        fault = sys.exc_info()[1]
        assert fault is not None
        self._process.world.witness.hold(FAULTLESS, False, f"{what}: {details} {_told(fault)}")


class Host:
    """`calm_since`: since when nothing has kept it from hearing of etcd; inf: something does. `armed`: what strikes at
    the next place of that name."""

    def __init__(self, world: World, name: str, off: float, random: Random) -> None:
        self.world, self.name = world, name
        self.folder: Path = world.folder / name
        self.folder.mkdir(mode=0o700)
        self.clock = HostClock(name, off, random.uniform(1_000.0, 100_000.0))
        self.entropy = Entropy(Random(f"{world.schedule.seed} {name}"))
        self.process: Process | None = None
        self.calm_since = inf
        self.down = 0.1
        self.wake = trio.Event()  # the host is started now
        self.reboots = False
        self.armed: dict[str, Any] = {}

    @property
    def there(self) -> Process | None:
        """The process that is up, unless it is stopped."""
        process = self.process
        is_up = process is not None and process.ready and self.name not in self.world.pauses.stopped
        return process if is_up else None

    async def run(self) -> None:
        """Starts brokerd again whenever it has ended."""
        HOST.set(self.name)
        while True:
            self.process = Process(self)
            self.world.say(self.name, "starts")
            await self.process.run()
            self.world.say(self.name, "has ended")
            self.calm_since, self.process = inf, None
            with trio.move_on_after(self.down):
                await self.wake.wait()
            if self.reboots:
                self.clock.restart()
                self.reboots = False


class Process:
    """One process of brokerd, from its start to its crash."""

    def __init__(self, host: Host) -> None:
        self.host, self.world, self.clock, self.entropy = host, host.world, host.clock, host.entropy
        self.dead = self.ready = False
        self._scope, self._waiting = trio.CancelScope(), set[trio.CancelScope]()
        self._store: HostStore
        self.broker: TokenBroker
        self.callers: trio.Nursery

    async def run(self) -> None:
        self._store = store = HostStore(self)
        try:
            with self._scope:
                async with trio.open_nursery() as running:
                    await store.begin(running)
                    await self._serve(store)
                    running.cancel_scope.cancel()
        except* Crashed:
            pass
        except* Exception as faults:
            self.world.witness.hold(FAULTLESS, False, f"{self.host.name}: {_told(faults)}")
        finally:
            self.ready = False
            store.close()

    async def _serve(self, store: HostStore) -> None:
        log, metrics = Log(self), _metrics()
        async with trio.open_nursery() as exchanging:
            runner = ExchangeRunner(store.store, self.clock, self.entropy, self._read_secrets, log, metrics)
            self.broker = TokenBroker(exchanging, store.store, self.clock, self.entropy, runner, log, metrics)
            async with trio.open_nursery() as self.callers:
                stored = store.all()
                configuration, providers = self.world.configuration(), dict[str, Provider]()
                apply(
                    self.broker,
                    configuration,
                    fingerprints(configuration),
                    stored,
                    store.breakers(),
                    providers,
                    lambda settings: Way(self, self.world.providers[settings.name]),
                    self.clock,
                    self.entropy,
                    starting=True,
                )
                store.join(self.broker, providers)
                for name in self.broker.grants:
                    self.broker.watch(name, self._told)
                self.callers.start_soon(self.broker.schedule.run, self.broker.single_flight.renew)
                self.ready = True
                self.world.disturbed(self.host)
                await trio.sleep_forever()

    async def _read_secrets(self, sources: Mapping[str, SecretSource]) -> dict[str, Secret]:
        await self.wait(0.001)
        return {name: read_secret(source) for name, source in sources.items()}

    def _told(self, grant: str) -> None:
        """A watcher, who fetches at once."""
        if not self.dead and (token := self.broker.cached(grant)) is not None:
            self.world.witness.served(self, grant, token.value.reveal())

    async def adopt(self) -> bool:
        """An operator agrees to what etcd has now. False: this host has not noticed that there is anything to adopt."""
        return await self.broker.adopt()

    # -- as a process does

    def check(self) -> None:
        if self.dead:
            raise Crashed

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Something outside is waited for; the process may die meanwhile, however shielded."""
        self.check()
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)
        self.check()

    async def wait(self, seconds: float) -> None:
        with self.outside():
            await trio.sleep(seconds)

    async def point(self, where: str) -> None:
        """A place where the schedule may want something to happen."""
        self.strikes(where)
        await trio.lowlevel.checkpoint()
        self.check()

    def strikes(self, where: str) -> bool:
        act = None if self.dead else self.host.armed.pop(where, None)
        if act is not None:
            act()
        return act is not None

    def crash(self) -> None:
        if not self.dead:
            self.dead, self.ready = True, False
            self.host.calm_since = inf
            self._store.abandon()
            for scope in (self._scope, *self._waiting):
                scope.cancel()


def is_verbose() -> bool:
    return bool(os.environ.get("BROKERD_SIMULATE_LOG"))
