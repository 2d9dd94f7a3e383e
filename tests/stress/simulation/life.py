# One process of brokerd, from its start to its crash or its end: the real core, dialect, broker, exchanges,
# refresher and store, joined as in daemon/main.py.
from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

import structlog
import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.key_management import KeyManager
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Conversation
from brokerd.broker.reload import apply, fingerprints
from brokerd.config.settings import Configuration
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.record import Record
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import StoredRecord, StoreError, StoreUnavailable, WrongKey
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from brokerd.edge.audit.files import FOLDER
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.files.secret_sources import read_secret
from brokerd.server.short_way import MadeAnswers
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics
from tests.stress.simulation.crash import Crashed, Steps
from tests.stress.simulation.disk import SimStore
from tests.stress.simulation.laws import BEGUN, Laws
from tests.stress.simulation.network import SENDER, Http

if TYPE_CHECKING:
    from tests.stress.simulation.world import World

AUDIT_BYTES = 4 << 20
LANDING = 10.0  # as in daemon/main.py


class Faultless(EventLog):
    """The audit log; a fault of brokerd's own breaks a law, and so does a secret that it says."""

    def __init__(self, laws: Laws, audit_writer: AuditWriter | None) -> None:
        super().__init__(structlog.wrap_logger(None, processors=[self._say]), audit_writer)
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


class Runner(ExchangeRunner):
    """The runner of exchanges; the network sees whose exchange it is, also while brokerd is being locked and after its
    grant has left the configuration."""

    async def run(self, grant: LiveGrant, *rest: Any, **more: Any) -> Conversation:
        SENDER.set(grant)
        return await super().run(grant, *rest, **more)


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
        self._reloading = trio.Lock()
        self.ready = self.has_recovered = False
        self.broker: TokenBroker
        self._made: MadeAnswers  # as the server has them, and what was asked for before
        self._asked: dict[tuple[str, float], weakref.ref[AccessToken]] = {}
        self._tokens: dict[bytes, AccessToken] = {}
        self.store: SimStore
        self.callers: trio.Nursery

    # -- as server/short_way.py does for a connection

    def short_way(self, grant: str, min_ttl: float) -> AccessToken | None:
        """The token of the answer that is made already, if it may be given again."""
        asked = self._asked.get((grant, min_ttl))
        if asked is None or (answer := self._made.find(grant, asked, min_ttl)) is None:
            return None
        token = self._tokens[answer]
        right = self.broker.cached(grant, min_ttl)
        self.laws.hold("the short way gives what the long way gives", token is right, f"{grant}: {answer.decode()}")
        return token

    def remember(self, grant: str, min_ttl: float, token: AccessToken) -> None:
        self._asked[grant, min_ttl] = weakref.ref(token)
        self._tokens[answer := token.value.reveal().encode()] = token
        self._made.keep(grant, token, answer)

    # -- as daemon/main.py does

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
        self.audit_writer = await self._audit_log()
        audit, metrics = Faultless(self.laws, self.audit_writer), _metrics()
        self.audit = audit
        async with trio.open_nursery() as exchanging:
            runner = Runner(self.store, self.clock, self.entropy, self._read_secrets, audit, metrics)
            self.broker = TokenBroker(exchanging, self.store, self.clock, self.entropy, runner, audit, metrics)
            self._made = MadeAnswers(self.broker)
            self.key_manager = KeyManager(self.store, self.broker, self, audit)
            self.laws.watch_logins(self)
            async with trio.open_nursery() as self.callers:
                self.laws.found(self.store.records())
                stored = self.store.all()
                self.laws.recovered(self, stored)
                self.has_recovered = True
                times = [row.record.changed.wall for row in stored if row.record and row.record.changed]
                self.clock.floor = max(times, default=0.0)
                await self._apply(self.world.configuration(), stored, starting=True)
                self.callers.start_soon(self.broker.schedule.run, self.broker.single_flight.renew)
                if any(event.what == "rotate" for event in self.world.schedule.events):
                    self.callers.start_soon(self.key_manager.finish_rotations)
                self.ready = True
                await self._stop.wait()
                self.ready = False
                disk = self.world.disk
                refusals = disk.refusals
                self.broker.stop()
                self.callers.cancel_scope.cancel()
            with trio.move_on_after(LANDING):
                await self.broker.single_flight.until_all_idle()
            exchanging.cancel_scope.cancel()
        with trio.move_on_after(LANDING):
            await self.broker.repair.store_again()
        if self.audit_writer is not None:
            await self.audit_writer.write(everything=True)
            self.laws.logged(self)
        kept = [grant for grant, held in self.broker.grants.items() if held.unstored]
        kept += [each.grant for each in self.store.kept()]
        is_same = disk is self.world.disk  # all faults may have stopped meanwhile
        well = is_same and disk.refusals == refusals and not disk.failing and self.clock.true() >= disk.full
        self.laws.hold("law 2: an orderly stop stores what the disk takes", not (kept and well), f"{kept}")
        self.laws.ended(self.laws.durable | self._held())

    async def _audit_log(self) -> AuditWriter | None:
        """The real one, in real files; its clock is the world's."""
        if not self.world.schedule.setup.audits:
            return None
        try:
            memory = await self.store.audit_memory()
        except StoreUnavailable:  # it ends, and systemd starts it again
            self.crash()
            raise Crashed from None
        audit_writer = AuditWriter(
            self.world.folder / FOLDER, memory, AUDIT_BYTES, self.store.remember_audit, self._write_audit
        )
        self.writing.start_soon(audit_writer.run)
        return audit_writer

    async def _write_audit(self, work: Callable[[], None]) -> None:
        await self.pause(self.world.disk_delay())
        work()

    async def reload(self, *, half: bool = False) -> None:
        async with self._reloading:
            await self._reload(half=half)

    async def _reload(self, *, half: bool) -> None:
        if self.broker.locked:
            raise self.broker.locked_failure()
        configuration = self.world.configuration(half=half)
        new = [name for name in configuration.grants if name not in self.broker.grants]
        with self.broker.registry.reading():
            stored = [row for name in new for row in await self.store.newest(name)]
            await self._apply(configuration, stored, starting=False)

    async def _apply(self, configuration: Configuration, stored: list[StoredRecord], *, starting: bool) -> None:
        prints = fingerprints(configuration)
        await self.pause(self.world.disk_delay())  # a thread reads the secrets
        changes, _ = apply(
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
            await self.store.set_dormant(changes.active, None)
            await self.store.set_dormant(changes.dormant, self.clock.now().wall)

    # -- for key management, as daemon/main.py does

    async def key_sources(self) -> tuple[SecretSource, ...]:
        return (SecretSource(file="present"), SecretSource(file="previous"))

    async def read_key(self, source: SecretSource) -> bytes:
        await self.pause(self.world.disk_delay())
        return self.world.keys.present if source.file == "present" else self.world.keys.previous

    async def load_grants(self) -> None:
        try:
            configuration = self.world.configuration()
            await self.pause(self.world.disk_delay())
            if self.audit_writer is not None:
                self.audit_writer.unlock(await self.store.audit_memory())
            async with self._reloading:
                await self._apply(configuration, self.store.all(), starting=True)
        except (ConfigError, StoreError) as error:
            raise Failure(Code.UNAVAILABLE, f"still locked: {error}") from None

    async def drop_secrets(self) -> None:
        if self.audit_writer is not None:
            await self.audit_writer.lock()
        self.laws.ended(self.laws.durable)
        self.providers.clear()

    async def _read_secrets(self, sources: Mapping[str, SecretSource]) -> dict[str, Secret]:
        await self.pause(self.world.disk_delay())
        return {name: read_secret(source) for name, source in sources.items()}

    def told(self, grant: str) -> None:
        """A watcher, who fetches at once."""
        if trio.current_effective_deadline() == -inf:  # somebody goes away; the laws learn later what it left undone
            return
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
        self.laws.ended(self.laws.durable if power else self.laws.durable | self._held(), power=power)

    def _held(self) -> dict[str, Record]:
        """What systemd holds beside the store. A life that ended before it had taken it back changed nothing of it. Of
        one generation the store's own record counts: a commit that failed may lie there all the same."""
        held, durable = self.store.held() if self.has_recovered else self.laws.held, self.laws.durable
        return {
            grant: record
            for grant, record in held.items()
            if grant not in durable or record.generation > durable[grant].generation
        }

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
