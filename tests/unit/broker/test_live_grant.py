# A grant's record, and how a new one reaches the store (broker/live_grant.py).
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.grant.record import Record
from brokerd.core.ports import StoredRecord
from brokerd.dialects.dialect import Needs


class SlowStore:
    """It answers a question when `answers` is set."""

    def __init__(self) -> None:
        self.answers = trio.Event()
        self.written: list[int] = []
        self.writes = 0  # under way

    async def read(self, grant: str) -> Iterable[StoredRecord]:
        await self.answers.wait()
        return [StoredRecord(grant, "f", Record(grant, generation=1), None)]

    async def write(self, record: Record, *_: object, **__: object) -> None:
        assert not self.writes, "one change is stored after the other"
        self.writes += 1
        if not self.answers.is_set():
            await self.answers.wait()
        else:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        self.writes -= 1
        self.written.append(record.generation)


def loaded() -> LiveGrant:
    """A grant as it is after a start: its record came from the store."""
    dialect = SimpleNamespace(needs=lambda _: Needs())
    settings: Any = SimpleNamespace(name="app", requested="", settings={}, provider=SimpleNamespace(dialect=dialect))
    provider: Any = None
    return LiveGrant(settings, provider, "f", Record("app", generation=1))


def next_generation(record: Record) -> Record:
    return replace(record, generation=record.generation + 1)


async def test_no_change_is_stored_while_the_record_is_compared_with_the_stores() -> None:
    """The store's would be an older one by the time of its answer, and would be taken for another process's."""
    grant, store = loaded(), SlowStore()
    any_store: Any = store
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grant.confirm, any_store, 1)
        await wait_all_tasks_blocked()
        nursery.start_soon(grant.change, any_store, next_generation)
        await wait_all_tasks_blocked()
        assert store.written == []
        assert grant.is_busy
        store.answers.set()
    assert store.written == [2]
    assert grant.record.generation == 2
    assert not grant.is_busy


@pytest.mark.parametrize("_turn", range(50))  # trio runs what is ready in any order
async def test_changes_are_stored_one_after_the_other_whoever_goes_away_meanwhile(_turn: int) -> None:
    grant, store = loaded(), SlowStore()
    any_store: Any = store
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grant.change, any_store, next_generation)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as leaving:
            leaving.start_soon(grant.change, any_store, next_generation)
            await wait_all_tasks_blocked()
            store.answers.set()
            leaving.cancel_scope.cancel()
            nursery.start_soon(grant.change, any_store, next_generation)
        nursery.start_soon(grant.change, any_store, next_generation)
    assert store.written == [2, 3, 4]
    assert not grant.is_busy


async def test_who_waits_until_a_resting_grant_is_stored_does_not_wait() -> None:
    grant = loaded()
    with trio.CancelScope() as scope:
        scope.cancel()
        await grant.settled()
    assert not scope.cancelled_caught
