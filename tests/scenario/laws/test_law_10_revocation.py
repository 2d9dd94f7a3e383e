# Law 10, the whole broker on virtual time: a revocation is final and durable; the provider is told until it has heard.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code, Failure
from brokerd.core.ports import TransportError
from tests.scenario.laws.helpers import failure_of, imported, until
from tests.scenario.laws.world import LIFETIME, REFRESHING, MemoryStore, ModelProvider, TestClock, world


async def test_a_revoked_grant_is_never_served_or_renewed_and_the_provider_is_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        done = await made.broker.revoke("app")
        assert (done.stored, done.provider) == (True, "told")
        assert len(made.provider.revoked) == 2
        asked = len(made.provider.asked)
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.REVOKED


async def test_the_provider_is_told_of_a_revocation_as_often_as_it_takes_across_restarts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        provider.answers = [(503, {})] * 3
        done = await made.broker.revoke("app", wait=1)
        assert (done.stored, done.provider) == (True, "pending")
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await until(lambda: len(provider.revoked) == 2, 600)
        await until(lambda: made.broker.status("app")["pending_revocations"] == 0)


async def test_tokens_that_come_after_the_revocation_are_revoked_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.gate = trio.Event()
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        done = await made.broker.revoke("app", wait=1)
        assert (done.stored, done.provider) == (True, "pending")
        made.provider.gate.set()
        made.provider.gate = None
        await until(lambda: f"test-only-access-{asked + 1}" in made.provider.revoked, 600)
        await until(lambda: made.broker.status("app")["pending_revocations"] == 0)
        assert not made.provider.valid


async def test_a_revocation_that_cannot_be_written_stops_serving_all_the_same_and_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.store.broken = True
        done = await made.broker.revoke("app")
        assert not done.stored
        assert "NOT" in done.detail
        assert (await failure_of(made)).code is Code.REVOKED
        made.store.broken = False
        await until(lambda: not made.broker.status("app")["unstored"])
        assert [record.state for record in made.store.records.values()] == ["revoked"]


async def test_only_an_import_ends_a_revocation(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        await made.broker.revoke("app")
        with pytest.raises(Failure) as caught:
            await made.broker.refresh("app")
        assert caught.value.code is Code.REVOKED
        made.apply()
        assert (await failure_of(made)).code is Code.REVOKED
        assert await imported(made)


async def test_a_refresh_that_brings_nothing_does_not_deny_the_token_that_lives(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        await trio.sleep(0.5 * LIFETIME)
        await made.broker.refresh("app")
        await trio.sleep(3)
        with pytest.raises(
            Failure,
            match=r"^app was renewed 3 s ago; a token that lives is renewed for callers once in a third",
        ) as caught:
            await made.broker.refresh("app")
        assert (caught.value.code, caught.value.retry_after) == (Code.UNAVAILABLE, LIFETIME / 3 - 3)
        await trio.sleep(LIFETIME / 3)
        made.provider.answers = [TransportError("connection refused", sent=False)] * 3
        with pytest.raises(Failure, match=r"^app was not refreshed and keeps its token: connection refused"):
            await made.broker.refresh("app")


async def test_an_edited_configuration_does_not_end_a_revocation(autojump_clock: MockClock, tmp_path: Path) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        await made.broker.revoke("app")
        made.configure(REFRESHING.replace("idp.test", "other.test"))
        assert (await failure_of(made)).code is Code.REVOKED
