# Hosts of a fleet on virtual time: the real broker and the real stores of each, joined as in the daemon; between them a
# model of etcd, and one provider with single-use refresh tokens. Each host has its own clocks and its own disk.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.broker.reload import apply, fingerprints
from brokerd.config.load import load
from brokerd.core.errors import Failure
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.fleet.etcd import Put, Transacted
from brokerd.core.fleet.layout import FleetKeys, RecordPlace
from brokerd.core.ports import Awaits, TransportError
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.daemon.sharing import connect
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Self, Shared
from brokerd.edge.fleet.store import FleetStore
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics
from tests.scenario.laws.world import REFRESHING, WALL, ModelProvider, TestClock, read_secrets
from tests.stress.simulation.fleet.model_etcd import Fault, ModelCluster, ModelEtcd

KEK, OTHER_KEK = b"k" * 32, b"x" * 32
DIFFERENCE = 120.0
LEASE = 15.0


class Killed(BaseException):
    """The process is gone."""


class Faultless(EventLog):
    """A fault of brokerd's own fails the test."""

    def bug(self, what: str, **details: object) -> None:
        raise AssertionError(f"{what}: {details}")


class Entropy(SystemEntropy):
    def fraction(self) -> float:
        return 0.5


@dataclass
class HostClock:
    """`ahead`: how many seconds the wall clock is; each boot has its own CLOCK_BOOTTIME."""

    ahead: float = 0.0
    boot_id: str = "boot-1"
    boot_began: float = 0.0
    trusted: bool = True
    floor: float = 0.0

    def now(self) -> Moment:
        now = trio.current_time()
        return Moment(WALL + now + self.ahead, now - self.boot_began, self.boot_id, self.trusted)


@dataclass
class Line:
    """The way of one host to the provider: what was sent is carried out, whether the host lives or not."""

    provider: ModelProvider
    clock: HostClock
    nursery: trio.Nursery
    dead: trio.Event
    sent: int = 0
    is_cut: bool = False

    async def send(self, request: Request) -> Response:
        if self.is_cut:
            raise TransportError("no route to host", sent=False)
        if request.last_look is not None:
            request.last_look()
        self.sent += 1
        began, ended, answers = self.clock.now(), trio.Event(), list[Response | TransportError]()

        async def carry() -> None:
            try:
                answers.append(await self.provider.send(request))
            except TransportError as error:
                answers.append(error)
            ended.set()

        self.nursery.start_soon(carry)
        await _first(ended, self.dead)
        if self.dead.is_set():
            raise Killed
        if isinstance(answers[0], TransportError):
            raise answers[0]
        return replace(answers[0], sent_at=began, at=self.clock.now())

    def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def _first(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True

        async def cancel_after(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(cancel_after, event)


@dataclass
class Loss:
    """What befalls the next `times` transactions that write a key of that kind, as Fault says. `outcome`: a record that
    ends an exchange."""

    what: str
    kind: str
    times: int
    seconds: float = 0.0


class Way(ModelEtcd):
    """The way of a host to etcd, on which transactions of a kind may be lost."""

    def __init__(self, cluster: ModelCluster, name: str, losses: list[Loss]) -> None:
        super().__init__(cluster, name, cluster.link(name))
        self._losses = losses

    async def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        kinds = {_kind(key) for key, put in changes.items() if put is not None}
        if "record" in kinds and any(_kind(key) == "journal" for key, put in changes.items() if put is None):
            kinds.add("outcome")
        for loss in self._losses:
            if loss.what in kinds and loss.times > 0:
                loss.times -= 1
                self._cluster.faults.insert(0, Fault(loss.kind, self._host, 1, loss.seconds))
                break
        return await super().transact(expected, changes)


def _kind(key: bytes) -> str:
    return key.decode().split("/")[3]


@dataclass(eq=False)
class Host:
    """A machine. `store`, `broker` and `line` are those of its present process."""

    fleet: Fleet
    name: str
    machine: str
    folder: Path
    clock: HostClock
    kek: bytes | None = KEK
    text: str = REFRESHING
    store: FleetStore = field(init=False)
    broker: TokenBroker = field(init=False)
    line: Line = field(init=False)
    providers: dict[str, Provider] = field(init=False)
    losses: list[Loss] = field(default_factory=list)
    dead: trio.Event = field(default_factory=trio.Event)
    _stop: trio.Event = field(default_factory=trio.Event)
    _ended: trio.Event = field(default_factory=trio.Event)

    # -- the life of the process

    async def start(self) -> Host:
        """Raises what a start raises."""
        self.dead, self._stop, self._ended = trio.Event(), trio.Event(), trio.Event()
        await self.fleet.nursery.start(self._run)
        return self

    async def stop(self) -> None:
        self._stop.set()
        await self._ended.wait()

    async def kill(self) -> None:
        """As kill -9: nobody hears of it. Its lease lives on."""
        cluster = self.fleet.cluster
        cluster.cut(self.way)
        self.dead.set()
        await self._ended.wait()
        cluster.heal(self.way)

    async def restart(self) -> Host:
        await self.kill()
        return await self.start()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            with contextlib.closing(SqliteStore(self.folder, self.kek, self.machine, Entropy(), inline)) as local:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(local.run)
                    nursery.start_soon(self._die)
                    await self._serve(local, nursery, task_status)
                    nursery.cancel_scope.cancel()
        except* Killed:
            pass
        finally:
            self._ended.set()

    async def _die(self) -> None:
        await self.dead.wait()
        raise Killed

    async def _serve(self, local: SqliteStore, nursery: trio.Nursery, started: trio.TaskStatus[None]) -> None:
        fleet, entropy, keys = self.fleet, Entropy(), FleetKeys("prod")
        etcd = Way(fleet.cluster, self.way, self.losses)
        me = Self("prod", self.name, f"{self.machine} {local.keys.store}", entropy.bytes(8).hex(), "1.0", DIFFERENCE)
        self.store = store = FleetStore(
            local, Shared(etcd, keys, Mirror(etcd, keys.root, self.clock), self.clock, entropy, me)
        )
        nursery.start_soon(store.run)
        await store.joined()
        events, metrics = Faultless(), Metrics()
        runner = ExchangeRunner(store, self.clock, entropy, read_secrets, events, metrics)
        self.broker = TokenBroker(nursery, store, self.clock, entropy, runner, events, metrics)
        self.line = Line(fleet.provider, self.clock, fleet.nursery, self.dead)
        self.providers = {}
        connect(store, self.broker, self.providers)
        if not local.is_locked:
            self.configure()
        nursery.start_soon(self.broker.schedule.run, self.broker.single_flight.renew)
        started.started()
        await self._stop.wait()
        self.broker.stop()
        await self.broker.single_flight.until_all_idle()
        await self.broker.repair.store_again()

    def configure(self) -> None:
        """As at a start."""
        path = self.folder / "brokerd.toml"
        path.write_text(self.text)
        path.chmod(0o600)
        read, store = load(path), self.store
        apply(
            self.broker,
            read,
            fingerprints(read),
            store.all(),
            store.breakers(),
            self.providers,
            lambda _: self.line,
            self.clock,
            Entropy(),
            starting=True,
        )

    def cut(self) -> None:
        self.fleet.cluster.cut(self.way)

    def heal(self) -> None:
        self.fleet.cluster.heal(self.way)

    @property
    def lives(self) -> bool:
        return hasattr(self, "store") and not self._ended.is_set()

    # -- what it has

    @property
    def way(self) -> str:
        """Its name on the way to etcd, where two machines may say the same name."""
        return self.name if self.machine == self.name else f"{self.name}@{self.machine}"

    @property
    def grant(self) -> LiveGrant:
        return self.broker.grants["app"]

    @property
    def place(self) -> RecordPlace:
        return RecordPlace("app", self.grant.fingerprint)

    def served(self) -> str | None:
        """The token that a caller gets without waiting."""
        try:
            token = self.broker.cached("app")
        except Failure:
            return None
        return None if token is None else token.value.reveal()

    async def log_in(self) -> str:
        """A new login. Returns its first access token."""
        await self.broker.import_token("app", Secret(self.fleet.provider.new_refresh_token()))
        return (await self.broker.get("app")).value.reveal()

    async def renewed(self) -> str:
        """A new token, however young the present one is."""
        self.grant.forget_early_renewal(None)
        return (await self.broker.refresh("app", wait=60.0)).value.reveal()

    async def under_way(self, nursery: trio.Nursery) -> None:
        """A renewal of it has sent the refresh token, and the provider takes its time."""
        sent = self.line.sent
        nursery.start_soon(self._renew)
        await until(lambda: self.line.sent > sent)
        await self.fleet.level()

    async def _renew(self) -> None:
        with contextlib.suppress(Failure):
            await self.renewed()

    async def begin(self, *, patient: bool = True, seconds: float = 180.0) -> None:
        """An exchange of the store alone, that sends the stored token."""
        awaits = Awaits(seconds, patient=patient)
        await self.store.begin("app", self.place.fingerprint, self.grant.record.generation, self.clock.now(), awaits)


async def inline(work: Callable[[], None]) -> None:
    await trio.lowlevel.checkpoint()
    work()


@dataclass
class Fleet:
    folder: Path
    nursery: trio.Nursery
    cluster: ModelCluster
    provider: ModelProvider
    hosts: list[Host] = field(default_factory=list)

    def add(self, name: str = "", *, machine: str = "", ahead: float = 0.0, text: str = REFRESHING) -> Host:
        """One more host, not started. Each has been up for another time."""
        number = len(self.hosts)
        name = name or f"web-{number}"
        folder = self.folder / f"{number}"
        folder.mkdir()
        clock = HostClock(ahead, f"boot-{number}", -1_000.0 * number)
        self.hosts.append(made := Host(self, name, machine or name, folder, clock, text=text))
        return made

    async def started(self, number: int) -> list[Host]:
        found = [await self.add().start() for _ in range(number)]
        await self.settled()
        return found

    async def settled(self) -> None:
        """Every host that lives has its lease, and sees what etcd has."""
        await until(lambda: all(each.store.lease.number for each in self.living()))
        await self.level()

    async def level(self) -> None:
        """Every host that is not cut off has seen what etcd has now."""
        server = self.cluster.server
        newest = max((pair.modified for pair in server.pairs.values()), default=0)
        await until(lambda: all(each.store.shared.mirror.revision >= newest for each in self.living()))

    def living(self) -> list[Host]:
        return [each for each in self.hosts if each.lives and not self.cluster.link(each.way).cut]

    def rows(self, kind: str) -> list[bytes]:
        """The keys of a kind in etcd."""
        prefix = f"/brokerd/prod/{kind}/".encode()
        return sorted(key for key in self.cluster.server.pairs if key.startswith(prefix))


async def until(condition: Callable[[], object], most: float = 1_000.0) -> None:
    """Wait, in virtual time, until the condition holds."""
    with trio.fail_after(most):
        while not condition():
            await trio.sleep(0.05)


@contextlib.asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    async with trio.open_nursery() as nursery:
        made = Fleet(folder, nursery, ModelCluster(nursery, Random(1)), ModelProvider(TestClock()))
        try:
            yield made
        finally:
            with trio.CancelScope(shield=True):
                for host in made.hosts:
                    if host.lives:
                        await host.kill()
            nursery.cancel_scope.cancel()
