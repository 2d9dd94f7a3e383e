# Law 15, the whole broker on virtual time: a copied store sends nothing until it is adopted.
from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from tests.scenario.laws.helpers import failure_of, imported
from tests.scenario.laws.world import LIFETIME, REFRESHING, MemoryStore, ModelProvider, TestClock, world


async def test_a_copied_store_spends_nothing_until_it_is_adopted(autojump_clock: MockClock, tmp_path: Path) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
    store.adopted = False
    asked = len(provider.asked)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.cached("app") is not None
        await trio.sleep(2 * LIFETIME)
        assert len(provider.asked) == asked
        failure = await failure_of(made)
        assert "brokerctl adopt" in failure.message
        await made.broker.adopt()
        await made.broker.get("app")
        assert len(provider.asked) == asked + 1
