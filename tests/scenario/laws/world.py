# A broker on virtual time: the real core, dialects, broker and refresher; a store and providers made of memory, whose
# faults are switched on by the test. What happens over real sockets and disks is shown in tests/scenario/daemon.
from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.provider import Provider
from brokerd.broker.reload import apply, fingerprints
from brokerd.config.load import load
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.grant.attempts import reopened
from brokerd.core.grant.record import Record
from brokerd.core.ports import GenerationConflict, StoredRecord, StoreUnavailable, TransportError
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment
from brokerd.edge.files.secret_sources import read_secret
from brokerd.edge.store.alone import Alone
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

WALL = 1_800_000_000.0
LIFETIME = 600.0  # seconds that the model provider's access tokens live


class TestClock:
    """trio's virtual time as both clocks; `wall_off` steps the wall clock."""

    __test__ = False

    def __init__(self) -> None:
        self.wall_off = 0.0
        self.boot_id = "boot-1"
        self.trusted = True

    def now(self) -> Moment:
        now = trio.current_time()
        return Moment(WALL + now + self.wall_off, now, self.boot_id, self.trusted)


class TestEntropy:
    __test__ = False

    def __init__(self, fraction: float = 0.5) -> None:
        self.next = fraction

    def bytes(self, n: int) -> bytes:
        return bytes(n)

    def fraction(self) -> float:
        return self.next


class MemoryStore(Alone):
    """The Store port. `broken` refuses everything; what was written before stays, and outlives a crash."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.attempts: dict[str, tuple[str, int, Moment]] = {}
        self.kept_breakers: dict[str, Breaker] = {}
        self.dormancy: dict[tuple[str, str], float] = {}
        self.adopted = True
        self.trouble: str | None = None
        self.since: float | None = None
        self.broken = False
        self.before_write: Callable[[Record], Awaitable[None]] | None = None
        self.writes: list[Record] = []
        self.histories: dict[tuple[str, str], bytes] = {}

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable("the store cannot be written: no space left on device")

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment, _: object = None) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self.attempts[grant] = (fingerprint, generation, at)

    async def write(
        self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool, history: bytes = b""
    ) -> None:
        if self.before_write is not None:
            await self.before_write(record)
        await trio.lowlevel.checkpoint()
        self._check()
        held = self.records.get((record.name, fingerprint))
        if (held.generation if held else None) != replaces:
            raise GenerationConflict("somebody else wrote")
        self.records[record.name, fingerprint] = record
        self.writes.append(record)
        self.histories[record.name, fingerprint] = history
        if concludes:
            self.attempts.pop(record.name, None)

    async def read(self, grant: str) -> list[StoredRecord]:
        await trio.lowlevel.checkpoint()
        self._check()
        return [row for row in self.all() if row.grant == grant]

    def all(self) -> list[StoredRecord]:
        found = []
        for (name, fingerprint), record in self.records.items():
            attempt = self.attempts.get(name)
            at = attempt[2] if attempt and attempt[:2] == (fingerprint, record.generation) else None
            dormant = self.dormancy.get((name, fingerprint))
            history = self.histories.get((name, fingerprint), b"")
            found.append(StoredRecord(name, fingerprint, reopened(record, interrupted=at), dormant, history=history))
        return found

    def kept(self) -> list[StoredRecord]:
        return []

    async def set_dormant(self, records: Iterable[tuple[str, str]], since: float | None) -> None:
        for key in records:
            if since is None:
                self.dormancy.pop(key, None)
            else:
                self.dormancy[key] = since

    async def dormant(self) -> list[StoredRecord]:
        await trio.lowlevel.checkpoint()
        return [row for row in self.all() if row.dormant_since is not None]

    async def forget(self, grant: str, fingerprint: str | None = None) -> int:
        mine = [key for key in self.records if key[0] == grant and fingerprint in (None, key[1])]
        for key in mine:
            del self.records[key]
        return len(mine)

    async def write_breaker(self, provider: str, breaker: Breaker) -> None:
        self._check()
        self.kept_breakers[provider] = breaker

    async def write_metadata(self, provider: str, metadata: Metadata) -> None:
        pass

    async def adopt(self) -> None:
        self._check()
        self.adopted = True


Answer = tuple[int, object]
Handler = Callable[[dict[str, str]], Awaitable[Answer | None]]


@dataclass
class ModelProvider:
    """An OAuth 2.0 server of a few lines with single-use refresh tokens, whose reuse kills the login."""

    clock: TestClock
    lifetime: float = LIFETIME
    refreshes: bool = True
    asked: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    answers: list[Answer | Exception] = field(default_factory=list)  # said instead, one for each request
    lost: int = 0  # so many answers get lost after the tokens rotated
    takes: float = 0.0  # seconds that an answer takes
    gate: trio.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    valid: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    reused: int = 0
    revoked: list[str] = field(default_factory=list)
    password: str = "test-only-password"
    scope: str | None = None  # answered where none is asked for
    narrows: bool = False  # the refresh token too, against RFC 6749 §6
    forbidden: set[str] = field(default_factory=set)  # scopes, audiences and resources that are refused
    connections: list[bool] = field(default_factory=list)

    def new_refresh_token(self) -> str:
        token = f"test-only-refresh-{len(self.valid) + len(self.used)}"
        self.valid.add(token)
        return token

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.asked]

    def count(self, grant_type: str) -> int:
        return sum(fields.get("grant_type") == grant_type for _, fields in self.asked)

    async def send(self, request: Request) -> Response:
        fields = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        sent = self.clock.now()
        self.asked.append((trio.current_time(), fields))
        self.connections.append(request.sends_stored)
        if self.gate is not None:
            await self.gate.wait()
        await trio.sleep(self.takes)
        if self.answers:
            said = self.answers.pop(0)
            if isinstance(said, Exception):
                raise said
            return self._response(sent, *said)
        status, body = self._serve(request, fields)
        if self.lost:
            self.lost -= 1
            raise TransportError("connection closed in the middle of the answer", sent=True)
        return self._response(sent, status, body)

    def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def _response(self, sent: Moment, status: int, body: object) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Response(status, tuple(self.headers.items()), data, sent, self.clock.now())

    def _serve(self, request: Request, fields: dict[str, str]) -> Answer:
        if request.url.endswith("/revoke"):
            self.revoked.append(fields["token"])
            self.valid.discard(fields["token"])
            return 200, {}
        for name, error in (("scope", "invalid_scope"), ("resource", "invalid_target"), ("audience", "invalid_target")):
            if self.forbidden & set(fields.get(name, "").split()):
                return 400, {"error": error}
        if fields["grant_type"] == "refresh_token":
            token = fields["refresh_token"]
            if token in self.used:
                self.reused += 1
                self.valid.clear()
            if token not in self.valid:
                return 400, {"error": "invalid_grant"}
            self.valid.discard(token)
            self.used.add(token)
        elif fields["grant_type"] == "password" and fields["password"] != self.password:
            return 400, {"error": "invalid_grant", "error_description": "wrong password"}
        body: dict[str, object] = {
            "access_token": f"test-only-access-{len(self.asked)}",
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }
        if scope := fields.get("scope", self.scope):
            body["scope"] = scope
            if self.narrows:
                self.scope = scope
        if self.refreshes and fields["grant_type"] != "client_credentials":
            body["refresh_token"] = self.new_refresh_token()
        return 200, body


@dataclass
class World:
    """Everything joined, as daemon/main.py joins it."""

    path: Path
    clock: TestClock
    store: MemoryStore
    provider: ModelProvider
    others: dict[str, ModelProvider]
    broker: TokenBroker
    providers: dict[str, Provider]
    entropy: TestEntropy
    secrets: dict[str, str]

    def apply(self, *, starting: bool = False) -> object:
        configuration = load(self.path)
        stored = self.store.all()
        changes, _ = apply(
            self.broker,
            configuration,
            fingerprints(configuration),
            stored,
            self.store.kept_breakers if starting else {},
            self.providers,
            lambda settings: self.others.get(settings.name, self.provider),
            self.clock,
            self.entropy,
            starting=starting,
        )
        for key in changes.dormant:
            self.store.dormancy[key] = self.clock.now().wall
        for key in changes.active:
            self.store.dormancy.pop(key, None)
        return changes

    def configure(self, text: str) -> object:
        self.path.write_text(text)
        return self.apply()


async def read_secrets(sources: Mapping[str, SecretSource]) -> dict[str, Secret]:
    """As daemon/main.py reads them, without the thread: virtual time would jump while one works."""
    await trio.lowlevel.checkpoint()
    return {name: read_secret(source) for name, source in sources.items()}


@asynccontextmanager
async def world(
    folder: Path,
    text: str,
    *,
    store: MemoryStore | None = None,
    provider: ModelProvider | None = None,
    others: dict[str, ModelProvider] | None = None,
    clock: TestClock | None = None,
    refresher: bool = True,
) -> AsyncIterator[World]:
    """A running broker; leaving the block is a crash: everything in memory is gone, `store` stays."""
    path = folder / "brokerd.toml"
    path.write_text(text)
    path.chmod(0o600)
    clock = clock or (provider.clock if provider else TestClock())
    store, provider = store or MemoryStore(), provider or ModelProvider(clock)
    entropy, audit, metrics = TestEntropy(), EventLog(), Metrics()
    async with trio.open_nursery() as nursery:
        runner = ExchangeRunner(store, clock, entropy, read_secrets, audit, metrics)
        broker = TokenBroker(nursery, store, clock, entropy, runner, audit, metrics)
        made = World(path, clock, store, provider, others or {}, broker, {}, entropy, {})
        made.apply(starting=True)
        if refresher:
            nursery.start_soon(broker.schedule.run, broker.single_flight.renew)
        yield made
        nursery.cancel_scope.cancel()


PROVIDER = """
[providers.idp]
dialect = "oauth2"
token_url = "https://idp.test/token"
revocation_url = "https://idp.test/revoke"
"""
REFRESHING = (
    PROVIDER
    + """
[grants.app]
provider = "idp"
grant_type = "refresh_token"
client_auth = "client_secret_basic"
credentials = { client_id = "app", client_secret = "test-only-secret" }
"""
)
ISSUING = REFRESHING.replace('grant_type = "refresh_token"', 'grant_type = "client_credentials"')
PASSWORD = (
    PROVIDER
    + """
[grants.app]
provider = "idp"
grant_type = "password"
client_auth = "none"
credentials = { client_id = "app", username = "alice", password = { file = "PASSWORD" } }
"""
)
