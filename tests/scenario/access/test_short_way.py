# The short way for the plain get gives, byte by byte, what the long way gives at that moment, whatever happened before:
# each answer that it makes is compared with the long way's, and each fetch is counted once.
from __future__ import annotations

import contextlib
import gc
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from brokerd_client.wire import Reader, pack_request, pack_result, read_reply, read_request
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from brokerd.core.access.admission import BURST, Account, Admission, Limits
from brokerd.core.access.policy import Caller, Policy, Rule, Selector
from brokerd.core.errors import Failure
from brokerd.core.secret import sha256_of
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.peer.peer import Peer
from brokerd.server.rpc import RpcConnection
from brokerd.server.server import Server
from brokerd.server.session import CallerSession
from brokerd.server.short_way import MOST_REQUESTS, RepeatedGets
from brokerd.telemetry.event_log import EventLog
from tests.scenario.access.methods import EVIL, PORTAL, RIGHT, Desk, Program, desk
from tests.scenario.laws.world import ISSUING, LIFETIME

TWO = ISSUING.replace("[grants.app]", '[grants.app]\nscope = ["read", "write"]')
TWO += ISSUING[ISSUING.index("[grants.app]") :].replace("app", "other")
PORTAL_SELECTED = (Selector(uid=PORTAL),)
BY_UID = Policy((Rule(("app", "other"), PORTAL_SELECTED), Rule(("app",), PORTAL_SELECTED, scope=("read",))), owner=990)
BY_PROGRAM = Policy((Rule(("app", "other"), (Selector(uid=PORTAL, exe="/opt/portal"),)),), owner=990)
APP_ONLY = Policy((Rule(("app",), (Selector(uid=PORTAL),)),), owner=990)
NOTHING = Policy(owner=990)
POLICIES = {"by uid": BY_UID, "by program": BY_PROGRAM, "app only": APP_ONLY, "nothing": NOTHING}
TEXTS = {
    "two": TWO,
    "app alone": ISSUING,
    "another scope": TWO.replace('"read", "write"', '"read"'),
    "a setting of the provider": TWO.replace("[providers.idp]", "[providers.idp]\nreuse_grace = 5"),
}
PLAIN = {"grant": "app", "wait": 0.0}
IDS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1)


class ProgramThatLives(Program):
    """As edge/peer/process.py has it: the caller is the same object as long as it shows the same evidence."""

    _shown: Caller | None = None

    def _seen(self) -> Caller:
        if self._shown is None or self._shown.evidence != self.evidence:
            self._shown = super()._seen()
        elif self.ended:
            raise ProcessLookupError
        return self._shown

    def still_shows(self, needs: frozenset[str], seen: Caller, _batch: object) -> bool:
        return not self.ended and self.glance(needs) is seen

    def lives(self) -> bool:
        return not self.ended

    def close(self) -> None:
        pass


class Compared(RepeatedGets):
    """Asks the long way at the same moment. `given`: how many answers the short way gave."""

    here: Desk
    audit: AuditWriter
    given = 0

    def answer(self, session: CallerSession, data: bytes, batch: object) -> bytes | None:
        before = self.fetches()
        answer = super().answer(session, data, batch)
        if answer is not None:
            self.given += 1
            assert self.fetches() == before + 1, "a fetch counts once"
            assert answer == self._long_way(session, data)
        return answer

    def fetches(self) -> int:
        """As the audit log has them."""
        return sum(1 + counted.again for counted in self.audit._deduplication._counted.values())

    def _long_way(self, session: CallerSession, data: bytes) -> bytes:
        reader = Reader()
        reader.feed(data)
        (message,) = reader
        number, method, params = read_request(message)
        return pack_result(number, self.here.dispatcher.answer(session, method, params))


@dataclass
class Output:
    level: str = "info"


class Client:
    """One connection to a real server; the process at its end is a model."""

    def __init__(self, here: Desk, nursery: trio.Nursery, way: RepeatedGets | None, account: Account) -> None:
        self.process = ProgramThatLives()
        self._ours, its = socket.socketpair()
        for each in (self._ours, its):
            each.setblocking(False)
        log = here.dispatcher.events
        self.server = Server(
            nursery, here.dispatcher, Admission(Limits(), 0), log, here.dispatcher.rights._metrics, way
        )
        peer = Peer(its)
        peer.process.close()
        peer.process = cast(Any, self.process)
        peer._check = lambda *_: None  # type: ignore[method-assign]
        self.connection = RpcConnection(its, peer, account, self.server)
        nursery.start_soon(self._serve)
        self._reader = Reader()

    async def _serve(self) -> None:
        try:
            with contextlib.suppress(OSError):
                await self.connection.serve()
        finally:
            self.connection.close()

    def close(self) -> None:
        self._ours.close()

    @property
    def session(self) -> CallerSession:
        assert self.connection._session is not None
        return self.connection._session

    def send(self, data: bytes) -> None:
        self._ours.send(data)

    async def replies(self, number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            await trio.lowlevel.wait_readable(self._ours)
            if not (data := self._ours.recv(65_536)):
                break
            self._reader.feed(data)
            found += [read_reply(each) for each in self._reader]
        return found

    async def get(self, number: int = 1, **params: object) -> Any:
        self.send(pack_request(number, "get", params or PLAIN))
        replies = await self.replies(1)
        assert replies, "the server hung up"
        assert replies[0].id == number
        return replies[0]


class History:
    """What has happened so far, and what can happen."""

    def __init__(self, here: Desk, client: Client, way: Compared, audit: AuditWriter, output: Output) -> None:
        self.here, self.client, self.way, self.audit, self.output = here, client, way, audit, output
        self.clock = here.made.clock

    async def get(self, params: dict[str, object], number: int, times: int) -> None:
        for _ in range(times):
            await self.client.get(number, **params)

    async def pipelined(self, params: dict[str, object], number: int, times: int) -> None:
        self.client.send(pack_request(number, "get", params) * times)
        assert len(await self.client.replies(times)) == times

    async def in_pieces(self, params: dict[str, object], number: int, at: int) -> None:
        data = pack_request(number, "get", params)
        self.client.send(data[:at])
        await trio.testing.wait_all_tasks_blocked()
        self.client.send(data[at:])
        assert len(await self.client.replies(1)) == 1

    async def refresh(self, grant: str) -> None:
        with contextlib.suppress(Failure):
            await self.here.broker.refresh(grant)

    async def revoke(self, grant: str) -> None:
        with contextlib.suppress(Failure):
            await self.here.broker.revoke(grant, wait=0.0)

    async def rules(self, name: str) -> None:
        self.here.dispatcher.rights.policy = replace(POLICIES[name])

    async def reload(self, name: str) -> None:
        if not self.here.broker.locked:
            self.here.made.configure(TEXTS[name])
            self.here.dispatcher.rights.policy = replace(self.here.dispatcher.rights.policy)

    async def lock(self) -> None:
        if not self.here.broker.locked:
            await self.here.broker.lock()

    async def begin_to_lock(self) -> None:
        """As at the beginning of `lock`, while exchanges end."""
        self.here.broker.locked = True

    async def unlock(self) -> None:
        if self.here.broker.locked:
            self.here.broker.unlocked()
            self.here.made.apply()

    async def time(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def step(self, seconds: float) -> None:
        self.clock.wall_off += seconds

    async def distrust(self) -> None:
        self.clock.trusted = not self.clock.trusted

    async def execute(self, evil: bool) -> None:
        self.client.process.evidence = EVIL if evil else RIGHT

    async def level(self, level: str) -> None:
        self.output.level = level

    async def disk(self, trouble: str | None) -> None:
        self.audit.trouble = trouble

    async def minute(self) -> None:
        self.audit._end_minutes(float("inf"))


GRANT = st.sampled_from(["app", "app", "app", "other", "none"])
PARAMS = st.fixed_dictionaries(
    {"grant": GRANT, "wait": st.just(0.0)},
    optional={
        "min_ttl": st.sampled_from([10.0, LIFETIME / 2 - 1, LIFETIME]),
        "scope": st.just(["read"]),
        "refused_sha256": st.sampled_from([1, 2]).map(lambda n: sha256_of(f"test-only-access-{n}").hex()),
        "request_id": st.just("0123456789abcdef"),
    },
)
ASKED = st.lists(st.one_of(st.just(PLAIN), PARAMS), min_size=1, max_size=3)  # a connection asks for few things, often
EVENTS = st.one_of(
    st.tuples(st.just("pipelined"), PARAMS, st.sampled_from(IDS), st.integers(2, 12)),
    st.tuples(st.just("in_pieces"), PARAMS, st.sampled_from(IDS), st.integers(1, 10)),
    st.tuples(st.just("refresh"), GRANT),
    st.tuples(st.just("revoke"), GRANT),
    st.tuples(st.just("rules"), st.sampled_from(sorted(POLICIES))),
    st.tuples(st.just("reload"), st.sampled_from(sorted(TEXTS))),
    st.tuples(st.just("lock")),
    st.tuples(st.just("unlock")),
    st.tuples(st.just("time"), st.sampled_from([0.001, 1.0, LIFETIME / 2, LIFETIME - 5, LIFETIME])),
    st.tuples(st.just("step"), st.sampled_from([-3600.0, -0.01, 0.003, 0.01, 3600.0])),
    st.tuples(st.just("distrust")),
    st.tuples(st.just("execute"), st.booleans()),
    st.tuples(st.just("level"), st.sampled_from(["info", "debug"])),
    st.tuples(st.just("disk"), st.sampled_from([None, "no space left on device"])),
    st.tuples(st.just("minute")),
)


@contextlib.asynccontextmanager
async def history(policy: Policy = BY_UID, account: Account | None = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        output, quiet = Output(), cast(Any, Quiet())
        audit = AuditWriter(Path(folder), None, 1 << 20, cast(Any, None))
        log = EventLog(quiet, audit, required=True, output=output)
        async with desk(Path(folder), policy, TWO, log) as here, trio.open_nursery() as nursery:
            rights = here.dispatcher.rights
            way = Compared(here.broker, rights, log, rights._metrics)
            way.here, way.audit = here, audit
            client = Client(here, nursery, way, account or Account())
            with contextlib.suppress(Failure):
                for grant in ("app", "other"):
                    await here.broker.refresh(grant)
            try:
                yield History(here, client, way, audit, output)
            finally:
                client.close()
            nursery.cancel_scope.cancel()


class Quiet:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: self


@given(
    policy=st.sampled_from(["by uid", "by uid", *POLICIES]),
    asked=ASKED,
    events=st.lists(st.tuples(EVENTS, st.integers(0, 2), st.sampled_from(IDS)), max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_the_short_way_gives_what_the_long_way_gives(
    policy: str, asked: list[dict[str, object]], events: list[tuple[tuple[Any, ...], int, int]]
) -> None:
    async def live() -> None:
        async with history(POLICIES[policy]) as past:
            for params in asked:
                await past.get(params, 1, 3)
            for (what, *values), which, number in events:
                await getattr(past, what)(*values)
                await past.get(asked[which % len(asked)], number, 1)  # what happened shows in the first get after it
                for params in asked:
                    await past.get(params, number, 3)

    trio.run(live, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("number", IDS)
async def test_it_is_taken_from_the_third_get_on_whatever_the_id(autojump_clock: MockClock, number: int) -> None:
    async with history() as past:
        first = await past.client.get(number)
        assert [await past.client.get(number) for _ in range(4)] == [first] * 4
        assert past.way.given == 3


async def test_it_is_taken_with_evidence_too(autojump_clock: MockClock) -> None:
    async with history(BY_PROGRAM) as past:
        for _ in range(5):
            await past.client.get()
        assert past.way.given == 3
        assert len([each for each in past.client.process.steps if each[0] == "glance"]) >= 5, "each get looks"


Change = Callable[[History], Awaitable[None]]
CHANGES: dict[str, tuple[Change, str | None]] = {  # and what the next get says
    "the rules are read again": (lambda past: past.rules("by program"), None),
    "a reload takes the right away": (lambda past: past.rules("nothing"), "unknown_grant"),
    "a reload changes the grant": (lambda past: past.reload("a setting of the provider"), None),
    "the token is renewed": (lambda past: past.refresh("app"), None),
    "the grant is revoked": (lambda past: past.revoke("app"), "revoked"),
    "brokerd is locked": (lambda past: past.lock(), "locked"),
    "brokerd is being locked": (lambda past: past.begin_to_lock(), "locked"),
    "the token expires": (lambda past: past.time(LIFETIME), "unavailable"),
    "the wall clock is set": (lambda past: past.step(0.01), None),
    "the log wants every fetch": (lambda past: past.level("debug"), None),
    "the audit log cannot be written": (lambda past: past.disk("no space left on device"), "unavailable"),
    "a minute of the audit log is over": (lambda past: past.minute(), None),
}


async def test_a_token_that_lives_too_short_for_the_request_ends_it(autojump_clock: MockClock) -> None:
    async with history() as past:
        for _ in range(3):
            await past.client.get(grant="app", min_ttl=10.0, wait=0.0)
        assert past.way.given == 1
        await past.time(LIFETIME - 5)
        assert (await past.client.get(grant="app", wait=0.0)).result["value"] == "test-only-access-1"
        assert (await past.client.get(grant="app", min_ttl=10.0, wait=0.0)).error["code"] == "unavailable"


async def test_a_downscoped_token_and_the_grants_own_are_never_mixed_up(autojump_clock: MockClock) -> None:
    async with history() as past:
        for _ in range(4):
            narrow = (await past.client.get(grant="app", scope=["read"])).result
            own = (await past.client.get(grant="app")).result
            assert narrow["scope"] == ["read"]
            assert narrow["value"] != own["value"]
            assert "scope" not in own


@pytest.mark.parametrize("change", CHANGES)
async def test_what_the_answer_depends_on_ends_it(autojump_clock: MockClock, change: str) -> None:
    happens, code = CHANGES[change]
    async with history() as past:
        for _ in range(3):
            await past.client.get()
        given = past.way.given
        assert given == 1
        await happens(past)
        reply = await past.client.get()
        assert past.way.given == given
        assert (None if reply.error is None else reply.error["code"]) == code


async def test_who_executes_another_program_is_denied_at_the_next_get(autojump_clock: MockClock) -> None:
    async with history(BY_PROGRAM) as past:
        for _ in range(3):
            await past.client.get()
        await past.execute(evil=True)
        assert (await past.client.get()).error["code"] == "unknown_grant"
        await past.execute(evil=False)
        assert (await past.client.get()).error is None


async def test_nothing_is_sent_once_the_caller_has_ended(autojump_clock: MockClock) -> None:
    async with history() as past:
        for _ in range(3):
            await past.client.get()
        past.client.process.ended = True
        past.client.send(pack_request(1, "get", PLAIN))
        assert await past.client.replies(1) == []
        assert past.way.given == 2, "the answer was made, and not sent"


async def test_each_get_is_charged(autojump_clock: MockClock) -> None:
    account = Account(rate=1.0)
    async with history(account=account) as past:
        for _ in range(3):
            await past.client.get()
        before = account._paid_until
        for _ in range(20):
            await past.client.get()
        assert past.way.given == 21
        assert account._paid_until - before == pytest.approx(20.0)
        account.charge(BURST, trio.current_time())
        began = trio.current_time()
        await past.client.get()
        assert trio.current_time() > began, "who is in arrears waits"


async def test_each_get_is_counted_in_the_metrics(autojump_clock: MockClock) -> None:
    async with history() as past:
        counter = past.here.dispatcher.rights._metrics.gets_cached
        before = counter._value.get()
        for _ in range(10):
            await past.client.get()
        assert counter._value.get() - before == 10 + past.way.given, "the comparison asks the long way too"


async def test_what_is_remembered_is_bounded_and_ends_with_the_token(autojump_clock: MockClock) -> None:
    async with history() as past:
        for wait in range(3 * MOST_REQUESTS):
            for _ in range(2):
                await past.client.get(grant="app", wait=float(wait))
            assert len(past.client.session.short) <= MOST_REQUESTS
        assert list(past.way.made._made) == ["app"]
        await past.lock()
        store = past.here.made.store
        for kept in (store.records, store.writes):  # this one is made of memory
            kept.clear()  # type: ignore[attr-defined]
        gc.collect()
        assert past.way.made._made == {}, "no token outlives a lock here"


async def test_an_answer_that_the_client_does_not_read_is_sent_later(autojump_clock: MockClock) -> None:
    """The socket takes no more: the rest leaves as the client reads, in the right order."""
    async with history() as past:
        for _ in range(3):
            await past.client.get()
        number = 0
        with contextlib.suppress(BlockingIOError):
            while number < 100_000:
                past.client.send(pack_request(number, "get", PLAIN))
                number += 1
                if number % 4 == 0:
                    await trio.testing.wait_all_tasks_blocked()
        assert [reply.id for reply in await past.client.replies(number)] == list(range(number))
