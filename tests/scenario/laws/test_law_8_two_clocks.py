# Law 8, the whole broker on virtual time: steps of the wall clock and reboots.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.scenario.laws.helpers import imported
from tests.scenario.laws.world import ISSUING, LIFETIME, REFRESHING, MemoryStore, ModelProvider, TestClock, world


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0], ids=["back a day", "forward a day"])
async def test_a_step_of_the_wall_clock_changes_neither_life_nor_renewal(
    autojump_clock: MockClock, tmp_path: Path, step: float
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        await trio.sleep(100)
        made.clock.wall_off = step
        token = made.broker.cached("app")
        assert token is not None
        assert made.broker.expires_at(token) == pytest.approx(made.clock.now().wall + LIFETIME - 100, abs=1)
        await trio.sleep(LIFETIME)
        assert len(made.provider.asked) == 2


async def test_after_a_reboot_with_an_unsynchronised_clock_tokens_are_renewed_before_they_are_served(
    autojump_clock: MockClock,
    tmp_path: Path,
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
    clock.boot_id, clock.trusted = "boot-2", False
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.cached("app") is None
        token = await made.broker.get("app")
        assert token.value.reveal() != value
        assert provider.count("refresh_token") == 2


async def test_after_a_restart_in_the_same_boot_tokens_are_served_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
