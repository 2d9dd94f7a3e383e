# A grant whose revocation is under way: what its status says until the revocation is stored, and what is no longer
# sent.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.core.errors import Code, Failure
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from tests.scenario.laws.helpers import failure_of, imported
from tests.scenario.laws.world import ISSUING, REFRESHING, World, world


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


async def refused(made: World) -> None:
    with pytest.raises(Failure) as raised:
        await made.broker.get("other")
    assert raised.value.code is Code.REVOKED
