# Law 3, the whole broker on virtual time: a refresh token that may be used up is not simply sent again.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code
from brokerd.core.ports import TransportError
from tests.scenario.laws.helpers import failure_of, imported, until
from tests.scenario.laws.world import ISSUING, LIFETIME, REFRESHING, MemoryStore, ModelProvider, TestClock, world


async def test_after_a_lost_answer_the_refresh_token_waits_for_the_end_of_the_living_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        issued = trio.current_time()
        made.provider.lost = 1
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        await until(lambda: made.broker.status("app")["interrupted"])
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - issued >= LIFETIME - 61
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        failure = await failure_of(made, min_ttl=200)
        assert failure.code is Code.NEEDS_LOGIN
        assert "interrupted" in failure.message
        assert "brokerctl import app" in failure.message


async def test_within_the_providers_grace_a_used_token_is_sent_again_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    async with world(tmp_path, text) as made:
        await imported(made)
        made.provider.answers = [TransportError("connection reset", sent=True)]
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - made.provider.times[-2] < 5
        assert made.broker.status("app")["interrupted"] is None


@pytest.mark.parametrize(
    "said",
    [TransportError("connection refused", sent=False), (429, {"error": "slow_down"})],
    ids=["before the first byte", "429"],
)
async def test_what_surely_used_nothing_marks_nothing(autojump_clock: MockClock, tmp_path: Path, said: object) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [said]  # type: ignore[list-item]
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        assert made.broker.status("app")["interrupted"] is None
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - made.provider.times[-2] < 3


async def test_a_crash_between_send_and_commit_is_an_interruption_at_the_next_start(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
        provider.gate = trio.Event()
        asked = len(provider.asked)
        await until(lambda: len(provider.asked) == asked + 1)
        crashed = dict(store.records), dict(store.attempts)
        provider.gate.set()
        provider.gate = None
    store.records, store.attempts = crashed
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.status("app")["interrupted"] is not None
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        asked = len(provider.asked)
        await trio.sleep(60)
        assert len(provider.asked) == asked


async def test_a_rejected_refresh_token_is_never_sent_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.valid.clear()
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        asked = len(made.provider.asked)
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.NEEDS_LOGIN
        assert all(record.refresh_token is None for record in made.store.records.values())


async def test_spending_requests_say_that_they_spend(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        assert made.provider.connections == [True]


async def test_sigterm_starts_no_exchange(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.broker.stop()
        assert (await failure_of(made)).code is Code.UNAVAILABLE
        assert made.provider.asked == []


async def test_a_2xx_that_cannot_be_read_is_an_interruption_whose_cause_stays_visible(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [(200, b"<br />Notice: Undefined index")]
        made.provider.valid.clear()
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        error = str(made.broker.status("app")["last_error"])
        assert "invalid_grant" in error
        assert "answered 200" in error
        assert "interrupted at" in error
        await imported(made)
        assert made.broker.status("app")["last_error"] is None
