# One process of brokerd, from its start to its crash or its end: the real core, dialect, flights, broker, exchanger,
# refresher and store, joined as in daemon.py.
from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
import trio

from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.config import Configuration, GrantSettings
from brokerd.core.failure import Code, Failure
from brokerd.core.ports import StoreError, StoreUnavailable, WrongKey
from brokerd.core.record import Record
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError
from brokerd.custody import Custody
from brokerd.edge.audit_file import FOLDER
from brokerd.edge.sealed_record import Stored
from brokerd.edge.secrets import read_secret
from brokerd.edge.trail import Trail
from brokerd.exchanger import Exchanger
from brokerd.metrics import Metrics
from brokerd.refresher import refresh_ahead
from brokerd.reload import bring_in, fingerprints
from tests.simulation.crash import Crashed, Steps
from tests.simulation.disk import SimStore
from tests.simulation.laws import BEGUN, Laws
from tests.simulation.network import Http

if TYPE_CHECKING:
    from tests.simulation.world import World

AUDIT_BYTES = 4 << 20
LANDING = 10.0  # as in daemon.py


class Faultless(Audit):
    """The audit log; a fault of brokerd's own breaks a law, and so does a secret that it says."""

    def __init__(self, laws: Laws, trail: Trail | None) -> None:
        super().__init__(structlog.wrap_logger(None, processors=[self._say]), trail)
        self._laws = laws

    def _say(self, _: object, level: str, event: dict[str, object]) -> str:
        self._laws.said(str(event))
        if event.get("outcome") not in (None, "issued") and "reason" in event and event.get("operation") != "revoke":
            self._laws.explained(str(event["grant"]), str(event["reason"]))
        if os.environ.get("BROKERD_SIMULATE_LOG"):
            print(f"{trio.current_time():9.2f}  {level:<8} {event}")
        raise structlog.DropEvent

    def bug(self, what: str, **details: object) -> None:
        fault = sys.exc_info()[1]
        assert fault is not None
        law = BEGUN if "begin while" in str(fault) else "no fault of our own"
        self._laws.hold(law, False, f"{what}: {details} {_told(fault)}")


class Life:
    """One process of brokerd, from its start to its crash or its end."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.laws = world, number, world.laws
        self.clock, self.entropy = world.clock, world.entropy
        self.dead = False
        self.steps: Steps | None = None
        self.providers: dict[str, Any] = {}
        self._died = trio.Event()
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self.ready = self.has_recovered = False
        self.broker: Broker
        self.store: SimStore
        self.callers: trio.Nursery

    # -- as daemon.py does

    async def run(self) -> None:
        self.store = self._opened()
        try:
            with self._scope:
                async with trio.open_nursery() as writing:
                    self.writing = writing
                    writing.start_soon(self.store.run)
                    await self._serve()
                    writing.cancel_scope.cancel()
        except* Crashed:
            pass
        except* Exception as faults:
            self.laws.hold("no fault of our own", False, _told(faults))
        finally:
            self.disarm()
            self.ready = False
            self.store.close()

    def _opened(self) -> SimStore:
        keys, folder, machine = self.world.keys, self.world.folder, self.world.machine
        try:
            return SimStore(self, folder, machine, keys.present)
        except WrongKey:  # a rotation was to come, or was cut short
            return SimStore(self, folder, machine, keys.previous)

    async def _serve(self) -> None:
        self.trail = await self._audit_log()
        audit, metrics = Faultless(self.laws, self.trail), _metrics()
        self.audit = audit
        async with trio.open_nursery() as flights:
            exchanger = Exchanger(self.store, self.clock, self.entropy, self._read_secrets, audit, metrics)
            self.broker = Broker(flights, self.store, self.clock, self.entropy, exchanger, audit, metrics)
            self.custody = Custody(self.store, self.broker, self, audit)
            self.laws.watch_logins(self)
            async with trio.open_nursery() as self.callers:
                self.laws.found(self.store.records())
                stored = self.store.all()
                self.laws.recovered(self, stored)
                self.has_recovered = True
                times = [row.record.changed.wall for row in stored if row.record and row.record.changed]
                self.clock.floor = max(times, default=0.0)
                await self._bring_in(self.world.configuration(), stored, starting=True)
                self.callers.start_soon(refresh_ahead, self.broker.flights, self.clock)
                if any(event.what == "rotate" for event in self.world.schedule.events):
                    self.callers.start_soon(self.custody.go_on)
                self.ready = True
                await self._stop.wait()
                self.ready = False
                refusals = self.world.disk.refusals
                self.broker.flights.stopping = True
                self.callers.cancel_scope.cancel()
            with trio.move_on_after(LANDING):
                await self.broker.flights.landed()
            flights.cancel_scope.cancel()
        with trio.move_on_after(LANDING):
            await self.broker.flights.store_again()
        if self.trail is not None:
            await self.trail.write(everything=True)
            self.laws.logged(self)
        kept = [grant for grant, held in self.broker.grants.items() if held.unstored]
        disk = self.world.disk
        well = disk.refusals == refusals and not disk.failing and self.clock.true() >= disk.full
        self.laws.hold("law 2: an orderly stop stores what the disk takes", not (kept and well), f"{kept}")
        self.laws.ended(self.laws.durable | self._held())

    async def _audit_log(self) -> Trail | None:
        """The real one, in real files; its clock is the world's."""
        if not self.world.schedule.setup.audits:
            return None
        try:
            memory = await self.store.audit_memory()
        except StoreUnavailable:  # it ends, and systemd starts it again
            self.crash()
            raise Crashed from None
        trail = Trail(self.world.folder / FOLDER, memory, AUDIT_BYTES, self.store.remember_audit, self._write_audit)
        self.writing.start_soon(trail.run)
        return trail

    async def _write_audit(self, work: Callable[[], None]) -> None:
        await self.pause(self.world.disk_delay())
        work()

    async def reload(self, *, half: bool = False) -> None:
        if self.broker.locked:
            raise self.broker.locked_failure()
        configuration = self.world.configuration(half=half)
        new = [name for name in configuration.grants if name not in self.broker.grants]
        stored = [row for name in new for row in await self.store.read(name)]
        await self._bring_in(configuration, stored, starting=False)

    async def _bring_in(self, configuration: Configuration, stored: list[Stored], *, starting: bool) -> None:
        prints = fingerprints(configuration)
        await self.pause(self.world.disk_delay())  # a thread reads the secrets
        changes, _ = bring_in(
            self.broker,
            configuration,
            prints,
            stored,
            self.store.breakers() if starting else {},
            self.providers,
            lambda settings: Http(self, self.world.providers[settings.name]),
            self.clock,
            self.entropy,
            starting=starting,
        )
        for name in self.broker.grants:
            self.broker.unwatch(name, self.told)
            self.broker.watch(name, self.told)
        with contextlib.suppress(StoreError):
            await self.store.set_dormant(changes.awake, None)
            await self.store.set_dormant(changes.aside, self.clock.now().wall)

    # -- for the custody of the keys, as daemon.py does

    async def key_sources(self) -> tuple[SecretSource, ...]:
        return (SecretSource(file="present"), SecretSource(file="previous"))

    async def read_key(self, source: SecretSource) -> bytes:
        await self.pause(self.world.disk_delay())
        return self.world.keys.present if source.file == "present" else self.world.keys.previous

    async def resume(self) -> None:
        try:
            configuration = self.world.configuration()
            await self.pause(self.world.disk_delay())
            if self.trail is not None:
                self.trail.unlock(await self.store.audit_memory())
            await self._bring_in(configuration, self.store.all(), starting=True)
        except (ConfigError, StoreError) as error:
            raise Failure(Code.UNAVAILABLE, f"still locked: {error}") from None

    async def let_go(self) -> None:
        if self.trail is not None:
            await self.trail.lock()
        self.laws.ended(self.laws.durable)
        self.providers.clear()

    async def _read_secrets(self, settings: GrantSettings) -> dict[str, Secret]:
        await self.pause(self.world.disk_delay())
        return {name: read_secret(source) for name, source in settings.credentials.items()}

    def told(self, grant: str) -> None:
        """A watcher, who fetches at once."""
        if not self.dead and not self.broker.locked and (token := self.broker.cached(grant)) is not None:
            self.laws.served(self, grant, token)

    # -- as a process does

    def check(self) -> None:
        if self.dead:
            raise Crashed

    async def pause(self, seconds: float) -> None:
        """Time passes outside; the process may die meanwhile, however shielded."""
        if seconds > 0:
            with trio.move_on_after(seconds):
                await self._died.wait()
        else:
            await trio.lowlevel.checkpoint()
        self.check()

    async def point(self, where: str) -> None:
        self.point_now(where)
        await trio.lowlevel.checkpoint()
        self.check()

    def point_now(self, where: str) -> None:
        """A place where the schedule may want a crash."""
        if self.world.strikes(where):
            self.crash()
            raise Crashed

    def look(self) -> None:
        if not self.dead and self.ready:
            self.laws.observe(self)

    def disarm(self) -> None:
        if self.steps is not None:
            trio.lowlevel.remove_instrument(self.steps)
            self.steps = None

    def crash(self, *, power: bool = False) -> None:
        """The process is gone; `power`: the machine as well."""
        if self.dead:
            return
        self.dead = True
        self.world.crashes += not self.world.over.is_set()
        self.ready = False
        self._died.set()
        self._scope.cancel()
        self.store.abandon(power=power)
        if power:
            self.world.systemd.pieces.clear()
        self.laws.ended(self.laws.durable if power else self.laws.durable | self._held())

    def _held(self) -> dict[str, Record]:
        """What systemd holds beside the store. A life that ended before it had taken it back changed nothing of it."""
        return self.store.held() if self.has_recovered else self.laws.held

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()


def _told(fault: BaseException) -> str:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{fault!r} in {last.name}, {last.filename}:{last.lineno}"


@functools.lru_cache
def _metrics() -> Metrics:
    """Counters that nobody reads: a registry for each life would be most of its time."""
    return Metrics()
