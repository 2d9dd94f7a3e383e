# A grant whose revocation is under way: what its status says until the revocation is stored, what is no longer sent,
# and what happens if who asked for it goes away.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.broker import broker as brokers
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from tests.scenario.laws.helpers import failure_of, imported, until
from tests.scenario.laws.world import ISSUING, LIFETIME, REFRESHING, World, world


async def test_a_grant_that_is_being_revoked_does_not_need_a_login(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        grant, meanwhile = made.broker.grant("app"), []

        async def ask(record: Record) -> None:
            assert (await failure_of(made)).code is Code.REVOKED
            meanwhile.append(grant.record.state)

        made.store.before_write = ask
        assert (await made.broker.revoke("app")).stored
        assert meanwhile[0] is State.READY


async def test_an_exchange_that_waits_for_its_turn_is_not_sent_once_its_grant_is_revoked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one, other = ISSUING.split("[grants.app]")
    text = f"{one}concurrency = 1\n[grants.app]{other}[grants.other]{other}"
    async with world(tmp_path, text, refresher=False) as made, trio.open_nursery() as callers:
        made.provider.gate = trio.Event()
        callers.start_soon(made.broker.get, "app")
        await wait_all_tasks_blocked()
        callers.start_soon(refused, made)  # its exchange waits until the provider's limit lets it go
        await wait_all_tasks_blocked()
        await made.broker.revoke("other")
        made.provider.gate.set()
    assert len(made.provider.asked) == 1


async def test_who_asks_for_a_revocation_once_more_and_goes_away_does_not_undo_the_one_under_way(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)

        async def slow(_: Record) -> None:
            with trio.CancelScope(shield=True):  # as the store does
                await trio.sleep(10)

        made.store.before_write = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.broker.revoke, "app")
            await trio.sleep(1)
            with trio.move_on_after(1):
                await made.broker.revoke("app")
            assert made.broker.cached("app") is None
            await trio.sleep(1)
            assert made.broker.cached("app") is None
        assert made.broker.grant("app").record.state is State.REVOKED


async def test_a_grant_whose_revocation_nobody_waited_for_until_it_was_written_is_renewed_ahead(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        grant, asked = made.broker.grant("app"), len(made.provider.asked)

        async def slow(_: Record) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(LIFETIME - 5)

        async with trio.open_nursery() as nursery:
            made.store.before_write = slow
            nursery.start_soon(grant.change, made.store, lambda record: record)  # another change is being written
            await trio.sleep(1)
            with trio.move_on_after(LIFETIME - 10):  # meanwhile its renewal was due
                await made.broker.revoke("app")
            made.store.before_write = None
        await until(lambda: len(made.provider.asked) > asked, 30)


async def test_the_provider_is_told_also_if_who_asked_went_away_while_another_token_was_settled(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)

        async def gone(*_: object) -> None:
            scope.cancel()
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(brokers, "settle_unrevocable", gone)
        with trio.CancelScope() as scope:
            await made.broker.revoke("app")
        await until(lambda: not made.broker.grant("app").record.pending_revocations, 60)
        assert len(made.provider.revoked) == 2


async def refused(made: World) -> None:
    with pytest.raises(Failure) as raised:
        await made.broker.get("other")
    assert raised.value.code is Code.REVOKED
