# One simulated world: brokerd's real core, dialect, flights, broker, exchanger, refresher and store, joined as in
# daemon.py, on virtual time, over model providers and a disk with faults. What is true is judged in laws.py.
from __future__ import annotations

import contextlib
import functools
import sqlite3
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import structlog
import trio
from trio.lowlevel import Task

from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.config import Configuration, GrantSettings, load
from brokerd.core.exchange import Request, Response
from brokerd.core.failure import Code, Failure
from brokerd.core.grant import State
from brokerd.core.ports import StoreError
from brokerd.core.record import AccessToken, Record
from brokerd.core.secret import Secret
from brokerd.core.typed import ConfigError
from brokerd.dialects import answer
from brokerd.edge.database import Database
from brokerd.edge.secrets import read_secret
from brokerd.edge.store import Store, Stored
from brokerd.exchanger import Exchanger
from brokerd.metrics import Metrics
from brokerd.refresher import refresh_ahead
from brokerd.reload import bring_in, fingerprints
from tests.simulation import providers as models
from tests.simulation.clock import Clock
from tests.simulation.laws import AHEAD, BEGUN, UNDATED, Laws
from tests.simulation.providers import DEADLINE, RIGHT, Fault, Reply, fields_of
from tests.simulation.schedule import GRANTS, PASSWORD, PROVIDER_OF, REFRESHING, Event, Schedule

T = TypeVar("T")
KEK = bytes(32)
LANDING = 10.0  # as in daemon.py
QUIET = 450.0  # seconds of peace at the end: the longest backoff and Retry-After with their jitter have passed


class Crashed(BaseException):
    """The process is gone; nothing of it does anything any more. Never caught by brokerd."""


class Entropy:
    """The Entropy port, from the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)

    def fraction(self) -> float:
        return self._random.random()


@dataclass
class Disk:
    """`full` until a true time; `failing`: after so many commits so many fail; `slow` until a true time."""

    full: float = -inf
    slow: float = -inf
    skip: int = 0
    failing: int = 0
    refusals: int = 0

    def refuses(self, now: float) -> bool:
        if self.failing and self.skip:
            self.skip -= 1
            return False
        refused = bool(self.failing) or now < self.full
        self.failing -= bool(self.failing)
        self.refusals += refused
        return refused


class SimStore(Store):
    """The real store; its work is done in the task itself, as slowly as the disk is, and a crash tears it."""

    def __init__(self, life: Life, folder: Path, machine: str) -> None:
        self._life = life
        self.running: list[Any] = []
        super().__init__(folder, KEK, machine, life.entropy, self._work)
        self._commit = self._database.commit
        self._database.commit = self._commit_or_not  # type: ignore[method-assign]

    async def _do(self, work: Callable[[Database], T]) -> T:
        self._life.check()
        return await super()._do(work)

    async def _work(self, work: Callable[[], None]) -> None:
        self.running = work.__defaults__[0]  # type: ignore[attr-defined] # the group, as Store.run binds it
        await self._life.pause(self._life.world.disk_delay())
        self._life.look()
        work()
        self._life.look()
        await self._life.point("after-commit")
        await self._life.pause(self._life.world.disk_delay())  # it is durable, and nobody knows yet
        self.running = []

    def _commit_or_not(self) -> None:
        self._life.point_now("before-commit")
        if self._life.world.disk.refuses(self._life.world.clock.true()):
            raise sqlite3.OperationalError("database or disk is full")
        self._commit()
        self._life.laws.committed(self._life)

    def abandon(self) -> None:
        """The process is gone: whoever waits for a write, shielded or not, is gone with it."""
        for _, result in (*self.running, *self._pending):
            result.error = Crashed()  # type: ignore[assignment]
            result.done.set()

    def records(self) -> dict[str, Record]:
        """What is durable."""
        return {row.grant: row.record for row in self.all() if row.record is not None}

    def journalled(self, grant: str) -> int | None:
        """The generation that the journal says is being spent."""
        run = self._database._connection.execute
        row = run("SELECT generation FROM journal WHERE name = ?", (grant,)).fetchone()
        return None if row is None else int(row[0])


class Http:
    """A life's way to a model provider: the Http port."""

    def __init__(self, life: Life, provider: models.Provider) -> None:
        self._life = life
        self._provider = provider

    async def send(self, request: Request) -> Response:
        life, provider, laws = self._life, self._provider, self._life.laws
        life.check()
        fields = fields_of(request)
        grant, telling = fields["client_id"], request.url.endswith("/revoke")
        if not telling:
            laws.decided(life, provider, grant, fields.get("refresh_token"))
        await life.point("before-send")
        fault = provider.fault()
        if fault is not None and fault.kind == "refuse":
            await life.pause(provider.latency())
            raise models.unreachable()
        laws.leaves(life, grant, fields, telling=telling)
        seen, moment = laws.seen[grant], life.world.clock.now()
        seen.in_flight.append((fields.get("grant_type", "revocation"), life.broker.grants.get(grant)))
        conversation = _Conversation(life, provider, request, fields, grant, fault, laws.seen[grant].epoch)
        try:
            return await conversation.run(moment)
        finally:
            if not conversation.settled and not telling:
                laws.touched(grant, fields, conversation.reply, conversation.epoch)
            if seen.in_flight and not life.dead:
                seen.in_flight.pop()

    def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Conversation:
    """One request on its way. `settled`: an answer came that says what became of the token that was sent."""

    def __init__(
        self,
        life: Life,
        provider: models.Provider,
        request: Request,
        fields: dict[str, str],
        grant: str,
        fault: Fault | None,
        epoch: int,
    ) -> None:
        self.life, self.provider, self.request, self.fields, self.grant = life, provider, request, fields, grant
        self.fault = fault or Fault("")
        self.epoch = epoch
        self.held = life.broker.grants.get(grant)
        self.reply: Reply | None = None
        self.settled = False

    async def run(self, sent: object) -> Response:
        kind, life, provider = self.fault.kind, self.life, self.provider
        seconds = self.fault.seconds or 0.0
        try:
            await life.pause(provider.latency() + (seconds if kind == "late-before" else 0.0))
        except Crashed:
            if provider.random.random() < 0.5:  # it was on its way already
                self._do(kind)
            raise
        if kind == "lost-before":
            raise models.lost()
        telling = self.request.url.endswith("/revoke")
        if kind not in UNDONE or (telling and kind == "no-token"):  # RFC 7009 §2.2: any body, status 200 is enough
            self._do(kind)
            if kind == "replayed":
                self._do(kind, again=True)
        await life.point("after-send")
        await life.pause(provider.latency() + (seconds if kind == "late" else 0.0))
        if kind == "never":
            await life.pause(DEADLINE)
        if kind in ("never", "lost-after"):
            raise models.lost()
        response = self._answer(kind, sent)
        await life.point("after-answer")
        life.look()
        return response

    def _do(self, kind: str, *, again: bool = False) -> None:
        reply = self.provider.do(self.grant, self.fields, self.request, kind)
        self.reply = self.reply if again else reply

    def _answer(self, kind: str, sent: object) -> Response:
        laws = self.life.laws
        if kind in STRANGE:
            response = self.provider.strange(kind, self.reply, sent, self.fault)
            if kind == "429":
                self.settled = True
                laws.unused(self.grant, self.fields)
            if (after := answer.retry_after(response)) is not None and "revoke" not in self.request.url:
                laws.asked_to_wait(self.grant, after, self.epoch)
            return response
        assert self.reply is not None
        self.settled = True
        laws.heard(self.grant, self.fields, self.reply, self.epoch, self.held)
        return self.provider.respond(self.reply, sent)


UNDONE = ("html", "html-403", "407", "429", "500", "503", "200-error", "no-token")
STRANGE = (*UNDONE, "500-with-tokens", "truncated")


class Steps(trio.abc.Instrument):
    """Ends a life after so many steps of any task: a crash at any await."""

    def __init__(self, life: Life, count: int) -> None:
        self._life, self._left = life, count

    def after_task_step(self, task: Task) -> None:
        self._left -= 1
        if self._left == 0:
            trio.lowlevel.current_trio_token().run_sync_soon(self._strike)

    def _strike(self) -> None:
        if self._life.steps is self:  # it was not called off meanwhile
            self._life.crash()


class Faultless(Audit):
    """The audit log; a fault of brokerd's own breaks a law."""

    def __init__(self, laws: Laws) -> None:
        super().__init__(structlog.get_logger("simulation"))
        self._laws = laws

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
        self.ready = False
        self.broker: Broker
        self.store: SimStore
        self.callers: trio.Nursery

    # -- as daemon.py does

    async def run(self) -> None:
        self.store = SimStore(self, self.world.folder, self.world.machine)
        try:
            with self._scope:
                async with trio.open_nursery() as writing:
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

    async def _serve(self) -> None:
        audit, metrics = Faultless(self.laws), _Metrics()
        async with trio.open_nursery() as flights:
            exchanger = Exchanger(self.store, self.clock, self.entropy, self._read_secrets, audit, metrics)
            self.broker = Broker(flights, self.store, self.clock, self.entropy, exchanger, audit, metrics)
            async with trio.open_nursery() as self.callers:
                stored = self.store.all()
                self.laws.durable = self.store.records()
                times = [row.record.changed.wall for row in stored if row.record and row.record.changed]
                self.clock.floor = max(times, default=0.0)
                await self._bring_in(self.world.configuration(), stored, starting=True)
                self.callers.start_soon(refresh_ahead, self.broker.flights, self.clock)
                self.ready = True
                await self._stop.wait()
                self.ready = False
                refusals = self.world.disk.refusals
                self.broker.flights.stopping = True
                self.callers.cancel_scope.cancel()
            with trio.move_on_after(LANDING):
                await self.broker.flights.landed()
            flights.cancel_scope.cancel()
        kept = [grant for grant, held in self.broker.grants.items() if held.unstored]
        disk = self.world.disk
        well = disk.refusals == refusals and not disk.failing and self.clock.true() >= disk.full
        self.laws.hold("law 2: an orderly stop stores what the disk takes", not (kept and well), f"{kept}")
        self.laws.ended(self.laws.durable)

    async def reload(self, *, half: bool = False) -> None:
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

    async def _read_secrets(self, settings: GrantSettings) -> dict[str, Secret]:
        await self.pause(self.world.disk_delay())
        return {name: read_secret(source) for name, source in settings.credentials.items()}

    def told(self, grant: str) -> None:
        """A watcher, who fetches at once."""
        if not self.dead and (token := self.broker.cached(grant)) is not None:
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

    def crash(self) -> None:
        if self.dead:
            return
        self.dead = True
        self.ready = False
        self._died.set()
        self._scope.cancel()
        self.store.abandon()
        self.laws.ended(self.laws.durable)

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()


def _told(fault: BaseException) -> str:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{fault!r} in {last.name}, {last.filename}:{last.lineno}"


class _Metrics(Metrics):
    """Counters that nobody reads: a registry for each life would be most of its time."""

    def __new__(cls) -> Any:
        global _shared
        if _shared is None:
            _shared = Metrics()
        return _shared


_shared: Metrics | None = None


@functools.lru_cache(maxsize=512)
def _loaded(path: Path, text: str) -> Configuration:
    path.write_text(text)
    path.chmod(0o600)
    return load(path)


class World:
    """A schedule at work. `run` is the main task of a trio of its own."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule, self.folder = schedule, folder
        self.clock, self.disk = Clock(), Disk()
        self._random = Random(f"{schedule.seed} world")
        self.entropy = Entropy(Random(f"{schedule.seed} entropy"))
        self.over = trio.Event()
        self.providers = {
            name: models.Provider(name, setup, self.clock, Random(f"{schedule.seed} {name}"))
            for name, setup in schedule.setup.providers.items()
        }
        self.laws = Laws(self)
        self.machine = "machine-1"
        self.life: Life | None = None
        self.lives = 0
        self.without: set[str] = set()
        self.scoped: set[str] = set()
        self._armed: tuple[str, int] | None = None
        self._down = 0.1
        self._up = trio.Event()
        self.password_file = folder / "password"
        self.write_password(RIGHT)

    def time(self) -> float:
        return trio.current_time()

    def provider_of(self, grant: str) -> models.Provider:
        return self.providers[PROVIDER_OF[grant]]

    def disk_delay(self) -> float:
        slow = 5.0 if self.clock.true() < self.disk.slow else 0.0
        return self._random.random() * (self.schedule.setup.disk_latency + slow)

    def write_password(self, value: str) -> None:
        self.password_file.write_text(value)
        self.password_file.chmod(0o600)

    def strikes(self, where: str) -> bool:
        if self._armed is None or self._armed[0] != where:
            return False
        self._armed = (where, self._armed[1] - 1) if self._armed[1] > 1 else None
        return self._armed is None

    def configuration(self, *, half: bool = False) -> Configuration:
        """What is configured. `half`: the file is being written. Raises ConfigError."""
        text = self._text() + ("\n[grants.half" if half else "")
        return _loaded(self.folder / "brokerd.toml", text)

    def _text(self) -> str:
        parts = []
        for name, setup in self.schedule.setup.providers.items():
            lines = [f"[providers.{name}]", 'dialect = "oauth2"', f'token_url = "https://{name}.test/token"']
            if setup.revocation:
                lines.append(f'revocation_url = "https://{name}.test/revoke"')
            lines += [f"reuse_grace = {setup.grace}", f"concurrency = {setup.concurrency}"]
            parts.append("\n".join(lines))
        for grant in self.schedule.setup.grants:
            if grant in self.without:
                continue
            credentials = f'client_id = "{grant}"'
            if GRANTS[grant] == PASSWORD:
                credentials += f', username = "alice", password = {{ file = "{self.password_file}" }}'
            else:
                credentials += ', client_secret = "test-only-secret"'
            auth = "none" if GRANTS[grant] == PASSWORD else "client_secret_post"
            lines = [f"[grants.{grant}]", f'provider = "{PROVIDER_OF[grant]}"', f'grant_type = "{GRANTS[grant]}"']
            lines += [f'client_auth = "{auth}"', f"credentials = {{ {credentials} }}"]
            if grant in self.scoped:
                lines.append('scope = ["read"]')
            parts.append("\n".join(lines))
        return "\n".join(parts)

    # -- running

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._machine)
            nursery.start_soon(self._happen)
            await self.over.wait()
            if self.life is not None:
                self.life.crash()
            nursery.cancel_scope.cancel()

    async def _machine(self) -> None:
        """Starts brokerd again whenever it has ended, as systemd does."""
        while True:
            self.lives += 1
            self.life = Life(self, self.lives)
            await self.life.run()
            self.life = None
            await trio.sleep(self._down)

    async def _happen(self) -> None:
        try:
            for event in self.schedule.events:
                await trio.sleep_until(event.at)
                getattr(self, f"_{event.what}")(event)
                self._look()
            await trio.sleep_until(self.schedule.horizon)
            with contextlib.suppress(Crashed):  # a law was broken, and the world ends
                await self._heal()
                await self._last_look()
        finally:
            self.over.set()

    def _look(self) -> None:
        if self.life is not None:
            self.life.look()

    @property
    def _there(self) -> Life | None:
        return self.life if self.life is not None and self.life.ready else None

    # -- events

    def _get(self, event: Event) -> None:
        if (life := self._there) is not None:
            for _ in range(int(str(event.values["callers"]))):
                life.callers.start_soon(self._caller, life, event)

    async def _caller(self, life: Life, event: Event) -> None:
        values = event.values
        grant, wait = str(values["grant"]), float(str(values["wait"]))
        if life.dead or grant not in life.broker.grants:
            return
        min_ttl = float(str(values.get("min_ttl", 0.0))) * self.provider_of(grant).setup.lifetime
        had = life.broker.cached(grant)
        refused = had.value.reveal() if had is not None and values.get("refused") else None
        begun = trio.current_time()
        with trio.move_on_after(float(str(values.get("leaves", inf)))):
            try:
                token = await life.broker.get(grant, min_ttl=min_ttl, wait=wait, refused=refused)
            except Failure as failure:
                at_once = had is not None and not min_ttl and refused is None
                self.laws.hold("law 5: a living token is served", not at_once, f"{grant}: {failure}")
            else:
                if not life.dead:
                    self.laws.served(life, grant, token, min_ttl)
                    fresh = refused is None or token.value.reveal() != refused
                    self.laws.hold("law 5: a refused token is not served again", fresh, grant)
            took = trio.current_time() - begun
            most = 0.0 if had is not None and not min_ttl and refused is None else wait
            self.laws.hold("law 13: a get ends in its time", took <= most + EPSILON, f"{grant}: {took:.2f} of {wait} s")

    def _refresh(self, event: Event) -> None:
        self._by_hand(event, self._refreshing)

    async def _refreshing(self, life: Life, grant: str) -> None:
        self.laws.by_hand(grant)
        before = life.broker.grants[grant].record.access_token
        token = await life.broker.refresh(grant)
        self.laws.served(life, grant, token)
        same = before is not None and before.value == token.value
        self.laws.hold("law 5: a refresh by hand brings a new token", not same, grant)

    def _revoke(self, event: Event) -> None:
        self._by_hand(event, self._revoking)

    async def _revoking(self, life: Life, grant: str) -> None:
        seen = self.laws.seen[grant]
        held = life.broker.grants[grant]
        self.laws.revoking(grant, held.record)
        epoch = seen.epoch
        try:
            done = await life.broker.revoke(grant)
        except trio.Cancelled:
            if epoch == seen.epoch and not life.dead and held.record.state is not State.REVOKED:
                seen.revoked = ""
            raise
        seen.doomed_stored = seen.doomed_stored or done.stored
        if done.stored and epoch == seen.epoch:
            seen.revoked = "stored"

    def _import(self, event: Event) -> None:
        self._by_hand(event, self._importing)

    async def _importing(self, life: Life, grant: str) -> None:
        token = self.provider_of(grant).login(grant)
        seen, held = self.laws.seen[grant], life.broker.grants[grant]
        self.laws.importing(grant, token)
        epoch = seen.epoch
        await life.broker.import_token(grant, Secret(token))
        if epoch == seen.epoch:
            self.laws.imported(grant, token, held)

    def _by_hand(self, event: Event, act: Callable[[Life, str], Awaitable[None]]) -> None:
        async def acting(life: Life) -> None:
            if life.dead or grant not in life.broker.grants:
                return
            with trio.move_on_after(float(str(event.values.get("leaves", inf)))), contextlib.suppress(Failure):
                try:
                    await act(life, grant)
                finally:
                    if not life.dead:
                        self.laws.by_hand(grant)  # what it overrode, it overrode at its end

        grant = str(event.values["grant"])
        if (life := self._there) is not None and grant in life.broker.grants:
            life.callers.start_soon(acting, life)

    def _fault(self, event: Event) -> None:
        values, lasts = event.values, event.values.get("lasts")
        seconds = values.get("seconds")
        fault = Fault(
            str(values["kind"]),
            float(str(values.get("requests", inf))),
            inf if lasts is None else self.clock.true() + float(str(lasts)),
            None if seconds is None else float(str(seconds)),
            bool(values.get("date")),
        )
        self.providers[str(values["provider"])].faults.append(fault)

    def _kill(self, event: Event) -> None:
        grant = str(event.values["grant"])
        self.provider_of(grant).kill(grant)

    def _password(self, event: Event) -> None:
        provider = self.provider_of("user")
        provider.password += "x"
        if event.values["kill"]:
            provider.kill("user")
        if event.values["told"]:
            self.write_password(provider.password)

    def _disk(self, event: Event) -> None:
        values, now = event.values, self.clock.true()
        match values["kind"]:
            case "full":
                self.disk.full = now + float(str(values["lasts"]))
            case "slow":
                self.disk.slow = now + float(str(values["lasts"]))
            case _:
                self.disk.skip, self.disk.failing = int(str(values["after"])), int(str(values["writes"]))

    def _crash(self, event: Event) -> None:
        values = event.values
        self._down = float(str(values["down"]))
        where, count = str(values["where"]), int(str(values.get("count", 1)))
        life = self._there
        if where == "now" and self.life is not None:
            self.life.crash()
        elif where == "step" and life is not None and life.steps is None:
            life.steps = Steps(life, count)
            trio.lowlevel.add_instrument(life.steps)
        elif where != "step":
            self._armed = (where, count)

    def _stop(self, event: Event) -> None:
        self._down = float(str(event.values["down"]))
        if (life := self._there) is not None:
            life.stop()
            if event.values["copied"]:
                self.machine += "x"

    def _adopt(self, event: Event) -> None:
        async def adopting(life: Life) -> None:
            with contextlib.suppress(Failure):
                await life.broker.adopt()

        if (life := self._there) is not None:
            life.callers.start_soon(adopting, life)

    def _suspend(self, event: Event) -> None:
        self.clock.suspended += float(str(event.values["seconds"]))

    def _step(self, event: Event) -> None:
        self.clock.step(float(str(event.values["seconds"])), noticed=bool(event.values["noticed"]))

    def _reboot(self, event: Event) -> None:
        self._down = float(str(event.values["down"]))
        if self.life is not None:
            self.life.crash()
        self.clock.reboot(float(str(event.values["off"])))
        self.laws.rebooted()

    def _reload(self, event: Event) -> None:
        async def reloading(life: Life) -> None:
            with contextlib.suppress(ConfigError, StoreError):
                await life.reload(half=values["kind"] == "bad")
            if (back := values.get("back")) is not None:
                await life.pause(float(str(back)))
                self.without.discard(grant)
                with contextlib.suppress(ConfigError, StoreError):
                    await life.reload()

        values, grant = event.values, str(event.values.get("grant"))
        match values["kind"]:
            case "scope":
                self.scoped ^= {grant}
            case "without":
                self.without.add(grant)
            case "back":
                self.without.clear()
        if (life := self._there) is not None:
            life.callers.start_soon(reloading, life)

    # -- the end

    async def _heal(self) -> None:
        """Everything is well again, and an operator has looked after what only he can mend."""
        self._armed, self.disk, self.without = None, Disk(), set()
        if self.clock.off:
            self.clock.step(0.0, noticed=True)
        self.clock.synchronised = True
        for provider in self.providers.values():
            provider.faults.clear()
        self.write_password(self.providers["two"].password)
        self._down = 0.1
        await self._until_up()
        await trio.sleep(70.0)  # requests that never get an answer have ended
        life = await self._until_up()
        life.disarm()
        with contextlib.suppress(Failure):
            await life.broker.adopt()
        await life.reload()
        for grant, held in life.broker.grants.items():
            if held.record.state is State.MISCONFIGURED:
                self.laws.by_hand(grant)
                with contextlib.suppress(Failure):
                    await life.broker.refresh(grant)
        longest = max(each.lifetime for each in self.schedule.setup.providers.values())
        await trio.sleep(QUIET + 1.5 * longest)

    async def _until_up(self) -> Life:
        while (life := self._there) is None:
            await trio.sleep(0.5)
        return life

    async def _last_look(self) -> None:
        life = await self._until_up()
        life.look()
        for grant in self.schedule.setup.grants:
            seen, status = self.laws.seen[grant], life.broker.status(grant)
            try:
                token = await life.broker.get(grant, wait=60.0)
            except Failure as failure:
                self._excused(life, grant, failure, status)
            else:
                self.laws.served(life, grant, token)
                self._good(life, grant, token, status)
            if seen.doomed and self.provider_of(grant).setup.revocation:
                self._told_in_the_end(grant, status)

    def _good(self, life: Life, grant: str, token: AccessToken, status: dict[str, object]) -> None:
        """A grant that serves in the end had its token before anybody asked, and says nothing bad of itself."""
        self.laws.hold(AHEAD, status["issued_at"] is not None, f"{grant}: {status}")
        if token.lifetime is None or life.broker.grants[grant].record.rotation_retry is not None:
            return  # it goes on without what failed, and the failure is still to be seen
        well = status["state"] in ("ready", "renewing") and not status["unstored"]
        self.laws.hold("final: each grant is ready", well, f"{grant}: {status}")
        self.laws.hold("final: a good grant says no error", status["last_error"] is None, f"{grant}: {status}")

    def _excused(self, life: Life, grant: str, failure: Failure, status: dict[str, object]) -> None:
        """A grant that serves nothing in the end is one that nobody can mend, and says so."""
        seen, provider = self.laws.seen[grant], self.provider_of(grant)
        if failure.code is Code.REVOKED:
            self.laws.hold("final: each grant is ready", bool(seen.revoked), f"{grant}: {failure}")
            return
        dead_end = failure.code is Code.UNAVAILABLE and status["next_renewal_at"] is None
        self.laws.hold("final: a dead end says that it needs a login", not dead_end, f"{grant}: {failure} {status}")
        record, boot = life.broker.grants[grant].record, self.clock.now().boot_id
        dated = (record.refresh_token and record.refresh_token.issued, record.retry, record.rotation_retry)
        undated = [each for each in dated if each is not None and not each.trusted and each.boot_id != boot]
        self.laws.hold(UNDATED, not undated, f"{grant}: {failure} {status}")
        living = [token for token in seen.known if provider.valid(token)]
        ours = GRANTS[grant] == REFRESHING and failure.code is Code.NEEDS_LOGIN
        self.laws.hold("final: each grant is ready", ours and not living, f"{grant}: {failure} {status} {living}")
        if seen.unheard and not provider.killed:
            said = "interrupted" in str(status["last_error"]) or status["interrupted"] is not None
            self.laws.hold("final: an interruption is the reason that is said", said, f"{grant}: {status}")

    def _told_in_the_end(self, grant: str, status: dict[str, object]) -> None:
        """Every token that was held at a revocation is dead at the provider (law 10)."""
        provider = self.provider_of(grant)
        living = [
            value
            for value in self.laws.seen[grant].doomed
            if provider.valid(value)
            or (
                value in provider.access
                and value not in provider.revoked
                and provider.access[value].expires > self.clock.true()
            )
        ]
        self.laws.hold("law 10: the provider is told in the end", not living, f"{grant}: {living} {status}")


EPSILON = 0.02  # seconds
