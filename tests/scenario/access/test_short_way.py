# The short way for the plain get gives, byte by byte, what the long way gives at that moment, whatever happened before:
# each answer that it makes is compared with the long way's, and each fetch is counted once. What only HTTP has is in
# test_short_way_of_http.py.
from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from brokerd.core.access.admission import BURST, Account
from brokerd.core.secret import sha256_of
from brokerd.server.short_way import MOST_REQUESTS
from tests.scenario.access.repeated_gets import (
    BY_PROGRAM,
    IDS,
    PLAIN,
    POLICIES,
    TEXTS,
    TOKENS,
    Client,
    History,
    HttpClient,
    history,
)
from tests.scenario.laws.world import LIFETIME

GRANT = st.sampled_from(["app", "app", "app", "other", "none"])
PARAMS = st.fixed_dictionaries(
    {"grant": GRANT, "wait": st.just(0.0)},
    optional={
        "min_ttl": st.sampled_from([10.0, LIFETIME / 2 - 1, LIFETIME]),
        "scope": st.just(["read"]),
        "refused_sha256": st.sampled_from(TOKENS).map(lambda token: sha256_of(token).hex()),
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


@pytest.mark.parametrize("kind", [Client, HttpClient])
@given(
    policy=st.sampled_from(["by uid", "by uid", *POLICIES]),
    asked=ASKED,
    events=st.lists(st.tuples(EVENTS, st.integers(0, 2), st.sampled_from(IDS)), max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_the_short_way_gives_what_the_long_way_gives(
    kind: type[Client], policy: str, asked: list[dict[str, object]], events: list[tuple[tuple[Any, ...], int, int]]
) -> None:
    async def live() -> None:
        async with history(POLICIES[policy], kind=kind) as past:
            for params in asked:
                await past.get(params, 1, 3)
            for (what, *values), which, number in events:
                await getattr(past, what)(*values)
                await past.get(asked[which % len(asked)], number, 1)  # what happened shows in the first get after it
                for params in asked:
                    await past.get(params, number, 3)

    trio.run(live, clock=MockClock(autojump_threshold=0))


@pytest.fixture(params=[Client, HttpClient])
def kind(request: pytest.FixtureRequest) -> Any:
    """Each test runs in both protocols."""
    return request.param


@pytest.mark.parametrize("number", IDS)
async def test_it_is_taken_from_the_third_get_on_whatever_the_id(
    kind: type[Client], autojump_clock: MockClock, number: int
) -> None:
    async with history(kind=kind) as past:
        first = await past.client.get(number)
        assert [await past.client.get(number) for _ in range(4)] == [first] * 4
        assert past.way.given == 3


async def test_it_is_taken_with_evidence_too(kind: type[Client], autojump_clock: MockClock) -> None:
    async with history(BY_PROGRAM, kind=kind) as past:
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


async def test_a_token_that_lives_too_short_for_the_request_ends_it(
    kind: type[Client], autojump_clock: MockClock
) -> None:
    async with history(kind=kind) as past:
        for _ in range(3):
            await past.client.get(grant="app", min_ttl=10.0, wait=0.0)
        assert past.way.given == 1
        await past.time(LIFETIME - 5)
        assert (await past.client.get(grant="app", wait=0.0)).result["value"] == "test-only-access-1"
        assert (await past.client.get(grant="app", min_ttl=10.0, wait=0.0)).error["code"] == "unavailable"


async def test_a_downscoped_token_and_the_grants_own_are_never_mixed_up(
    kind: type[Client], autojump_clock: MockClock
) -> None:
    async with history(kind=kind) as past:
        for _ in range(4):
            narrow = (await past.client.get(grant="app", scope=["read"])).result
            own = (await past.client.get(grant="app")).result
            assert narrow["scope"] == ["read"]
            assert narrow["value"] != own["value"]
            assert "scope" not in own


@pytest.mark.parametrize("change", CHANGES)
async def test_what_the_answer_depends_on_ends_it(kind: type[Client], autojump_clock: MockClock, change: str) -> None:
    happens, code = CHANGES[change]
    async with history(kind=kind) as past:
        for _ in range(3):
            await past.client.get()
        given = past.way.given
        assert given == 1
        await happens(past)
        reply = await past.client.get()
        assert past.way.given == given
        assert (None if reply.error is None else reply.error["code"]) == code


async def test_who_executes_another_program_is_denied_at_the_next_get(
    kind: type[Client], autojump_clock: MockClock
) -> None:
    async with history(BY_PROGRAM, kind=kind) as past:
        for _ in range(3):
            await past.client.get()
        await past.execute(evil=True)
        assert (await past.client.get()).error["code"] == "unknown_grant"
        await past.execute(evil=False)
        assert (await past.client.get()).error is None


async def test_nothing_is_sent_once_the_caller_has_ended(kind: type[Client], autojump_clock: MockClock) -> None:
    async with history(kind=kind) as past:
        for _ in range(3):
            await past.client.get()
        past.client.process.ended = True
        past.client.send(past.client.request(1, PLAIN))
        assert await past.client.replies(1) == []
        assert past.way.given == 2, "the answer was made, and not sent"


async def test_each_get_is_charged(kind: type[Client], autojump_clock: MockClock) -> None:
    account = Account(rate=1.0)
    async with history(account=account, kind=kind) as past:
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


async def test_each_get_is_counted_in_the_metrics(kind: type[Client], autojump_clock: MockClock) -> None:
    async with history(kind=kind) as past:
        counter = past.here.dispatcher.rights._metrics.gets_cached
        before = counter._value.get()
        for _ in range(10):
            await past.client.get()
        assert counter._value.get() - before == 10 + past.way.given, "the comparison asks the long way too"


async def test_what_is_remembered_is_bounded_and_ends_with_the_token(
    kind: type[Client], autojump_clock: MockClock
) -> None:
    async with history(kind=kind) as past:
        for wait in range(3 * MOST_REQUESTS):
            for _ in range(2):
                await past.client.get(grant="app", wait=float(wait))
            assert len(past.client.session.short) <= MOST_REQUESTS
        assert {grant for grant, _ in past.way.made._made} == {"app"}
        assert len(past.way.made._made) == (1 if kind is Client else 3 * MOST_REQUESTS)
        await past.lock()
        store = past.here.made.store
        for kept in (store.records, store.writes):  # this one is made of memory
            kept.clear()  # type: ignore[attr-defined]
        gc.collect()
        assert past.way.made._made == {}, "no token outlives a lock here"


async def test_an_answer_that_the_client_does_not_read_is_sent_later(
    kind: type[Client], autojump_clock: MockClock
) -> None:
    """The socket takes no more: the rest leaves as the client reads, in the right order."""
    async with history(kind=kind) as past:
        for _ in range(3):
            await past.client.get()
        number = 0
        with contextlib.suppress(BlockingIOError):
            while number < 100_000:
                past.client.send(past.client.request(number, PLAIN))
                number += 1
                if number % 4 == 0:
                    await trio.testing.wait_all_tasks_blocked()
        wanted = list(range(number)) if kind is Client else [None] * number
        assert [reply.id for reply in await past.client.replies(number)] == wanted


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_client_that_ends_its_sending_gets_all_its_answers(
    kind: type[Client], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """The socket takes no more of them, and then the client ends its sending: it reads them all the same. `at_once`:
    brokerd sees the end as soon as it has not sent the rest."""
    async with history(kind=kind) as past:
        for _ in range(3):
            await past.client.get()
        number, sock, connection = 0, past.client._ours, past.client.connection
        send_alone = connection._send_alone

        def send(data: bytes) -> bool:
            if not (sent := send_alone(data)) and at_once:
                sock.shutdown(socket.SHUT_WR)
            return sent

        monkeypatch.setattr(connection, "_send_alone", send)
        while not connection._outbox and connection._sock.fileno() >= 0:
            past.client.send(past.client.request(number, PLAIN))
            number += 1
            await trio.testing.wait_all_tasks_blocked()
        sock.shutdown(socket.SHUT_WR)
        assert len(await past.client.replies(number)) == number
