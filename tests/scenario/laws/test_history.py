# The history of a grant's exchanges on virtual time: it is written with the record that an exchange ends with, outlives
# restarts and outages, and ends with the grant.
from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from brokerd.core.grant.history import Ended, unpacked
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from tests.scenario.laws.helpers import until
from tests.scenario.laws.world import ISSUING, REFRESHING, WALL, MemoryStore, ModelProvider, TestClock, World, world


def seen(made: World) -> list[Ended]:
    return unpacked(made.broker.grants["app"].history)


def stored(store: MemoryStore) -> list[Ended]:
    (packed,) = store.histories.values()
    return unpacked(packed)


async def test_an_exchange_is_in_the_history_and_in_the_store_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.takes = 3.0
        await made.broker.get("app")
        (row,) = seen(made)
        assert (row.operation, row.outcome, row.reason, row.seconds) == ("issue", "issued", None, 3.0)
        assert row.at == WALL + trio.current_time()
        assert stored(made.store) == [row]


async def test_a_restart_goes_on_with_the_history(autojump_clock: MockClock, tmp_path: Path) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    for times in (1, 2):
        async with world(tmp_path, ISSUING, store=store, provider=provider) as made:
            await until(lambda times=times, made=made: len(seen(made)) == times)  # type: ignore[misc]
    assert [each.outcome for each in stored(store)] == ["issued", "issued"]


async def test_a_day_without_the_provider_is_a_few_rows_with_since_when_and_how_often(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        began = WALL + trio.current_time()
        made.provider.answers = [TransportError("connection refused", sent=False)] * 10_000
        await trio.sleep(86_400)
        issued, down = seen(made)
        assert (issued.outcome, down.outcome, down.reason) == ("issued", "postponed", "connection refused")
        assert down.count > 90
        assert began < down.at < began + 600
        assert down.last > began + 85_000


async def test_what_the_store_does_not_take_is_in_memory_and_stored_later(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        made.store.broken = True
        made.provider.answers = [(503, {})]
        await until(lambda: len(seen(made)) == 2)
        assert len(stored(made.store)) == 1
        made.store.broken = False
        await until(lambda: len(stored(made.store)) >= 2)
        assert stored(made.store)[1].outcome == "postponed"


async def test_revocations_and_what_a_late_answer_is_about_are_in_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        await made.broker.get("app")
        await made.broker.revoke("app")
        assert [(each.operation, each.outcome) for each in stored(made.store)][:2] == [
            ("renew", "issued"),
            ("revoke", "done"),
        ]


async def test_what_was_refused_is_told_in_the_providers_words(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(401, {"error": "invalid_client"})]
        await until(lambda: len(seen(made)) >= 1)
        assert seen(made)[0].outcome == "misconfigured"
        assert "invalid_client" in (seen(made)[0].reason or "")
