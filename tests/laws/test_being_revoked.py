# What a grant says of itself while its revocation is on its way to the disk.
from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from brokerd.core.failure import Code
from brokerd.core.grant import State
from brokerd.core.record import Record
from tests.laws.test_laws import failure_of, imported
from tests.laws.world import REFRESHING, world


async def test_a_grant_that_is_being_revoked_does_not_need_a_login(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        held, meanwhile = made.broker.held("app"), []

        async def ask(record: Record) -> None:
            assert (await failure_of(made)).code is Code.REVOKED
            meanwhile.append(held.record.state)

        made.store.before_write = ask
        assert (await made.broker.revoke("app")).stored
        assert meanwhile[0] is State.READY
