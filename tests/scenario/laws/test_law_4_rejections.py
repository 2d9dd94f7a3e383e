# Law 4, the whole broker on virtual time: an invalid_grant counts for the current generation only.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from tests.scenario.laws.helpers import imported, until
from tests.scenario.laws.world import LIFETIME, REFRESHING, MemoryStore, ModelProvider, TestClock, world


async def test_a_rejection_is_not_believed_if_somebody_else_renewed_meanwhile(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        grant = made.broker.grants["app"]
        key = ("app", grant.fingerprint)
        assert grant.record.access_token is not None
        newer = structs.replace(grant.record.access_token, value=Secret("test-only-theirs"))
        theirs = replace(grant.record, generation=grant.record.generation + 1, access_token=newer)

        async def rotate_behind_our_back() -> None:
            made.provider.gate = trio.Event()
            await until(lambda: len(made.provider.asked) == 2)
            made.store.records[key] = theirs
            made.provider.answers = [(400, {"error": "invalid_grant"})]
            made.provider.gate.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate_behind_our_back)
            await made.broker.refresh("app")
        assert grant.record == theirs
        assert made.store.records[key] == theirs


async def test_a_stray_rejection_costs_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """One server of a cluster has not heard of the refresh token yet."""
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
        issued = trio.current_time()
        provider.answers = [(400, {"error": "invalid_grant"})]
        await until(lambda: len(provider.asked) == 2)
        await trio.sleep(1)
        status = made.broker.status("app")
        assert status["state"] == "retrying"
        assert "invalid_grant (it was rejected once" in str(status["last_error"])
        assert status["remedy"] == "brokerctl import app"
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        made.apply()
        await until(lambda: len(provider.asked) == 3)
        assert LIFETIME - 61 <= trio.current_time() - issued <= LIFETIME - 30
        await until(lambda: made.broker.status("app")["state"] == "ready")
        assert made.broker.status("app")["remedy"] is None
        assert provider.reused == 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refresh_by_hand_that_meets_an_outage_leaves_the_last_try_where_it_was(
    autojump_clock: MockClock, tmp_path: Path, status: int
) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await imported(made)
        issued = trio.current_time()
        provider.answers = [(400, {"error": "invalid_grant"}), (status, {})]
        await until(lambda: len(provider.asked) == 2)
        with pytest.raises(Failure, match=str(status)):
            await made.broker.refresh("app")
        made.apply()
        await trio.sleep(10)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await until(lambda: len(provider.asked) == 4)
        assert LIFETIME - 61 <= trio.current_time() - issued <= LIFETIME - 30
        await until(lambda: made.broker.status("app")["state"] == "ready")


async def test_the_second_rejection_counts(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [(400, {"error": "invalid_grant"})] * 9
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == 3


async def test_after_an_interruption_the_first_rejection_counts(autojump_clock: MockClock, tmp_path: Path) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    async with world(tmp_path, text) as made:
        await imported(made)
        made.provider.answers = [TransportError("connection reset", sent=True), (400, {"error": "invalid_grant"})]
        await until(lambda: len(made.provider.asked) == 3)
        await until(lambda: made.broker.status("app")["state"] == "needs_login", 2)
