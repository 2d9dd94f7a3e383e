# Law 2, the whole broker on virtual time: a new refresh token is stored before anything that came with it is served.
from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from brokerd.core.grant.record import Record
from brokerd.core.secret import Secret
from tests.scenario.laws.helpers import imported, until
from tests.scenario.laws.world import ISSUING, LIFETIME, REFRESHING, world


async def test_a_rotated_token_is_not_served_before_it_is_stored(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        first = made.broker.cached("app")
        seen = []

        async def look(record: Record) -> None:
            seen.append((record.generation, made.broker.cached("app")))

        made.store.before_write = look
        await made.broker.refresh("app")
        stored = [token for generation, token in seen if generation == 3]
        assert stored == [first]
        assert made.broker.cached("app") != first


async def test_without_a_journal_nothing_that_spends_is_sent(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        asked = len(made.provider.asked)
        made.store.broken = True
        await trio.sleep(0.8 * LIFETIME)
        assert len(made.provider.asked) == asked
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        made.store.broken = False
        await until(lambda: len(made.provider.asked) > asked, 600)
        assert made.provider.reused == 0


async def test_a_token_that_could_not_be_stored_is_served_and_renewed_only_once_it_is(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)

        async def break_at_commit(record: Record) -> None:
            made.store.broken = True

        made.store.before_write = break_at_commit
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        await until(lambda: made.broker.status("app")["unstored"])
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == f"test-only-access-{asked + 1}"
        await trio.sleep(2 * LIFETIME)
        assert len(made.provider.asked) == asked + 1
        made.store.before_write, made.store.broken = None, False
        await until(lambda: made.broker.cached("app"), 600)
        assert not made.broker.status("app")["unstored"]
        assert made.provider.reused == 0


async def test_grants_that_spend_nothing_go_on_in_memory_while_the_disk_is_away(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.store.broken = True
        for _ in range(5):
            await trio.sleep(LIFETIME)
            assert made.broker.cached("app") is not None


async def test_an_answer_without_a_refresh_token_keeps_the_old_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        made.provider.refreshes = False
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        await made.broker.get("app")
        assert made.broker.grants["app"].record.refresh_token is not None
