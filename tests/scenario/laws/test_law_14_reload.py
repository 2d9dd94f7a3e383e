# Law 14, the whole broker on virtual time: what a reload keeps, renews and sets aside.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.reload import DORMANT_LONGEST, sweep_dormant
from brokerd.core.errors import Code
from brokerd.telemetry.event_log import EventLog
from tests.scenario.laws.helpers import failure_of, imported, until
from tests.scenario.laws.world import ISSUING, LIFETIME, REFRESHING, World, world


async def test_an_unchanged_grant_keeps_token_and_timer_at_a_reload(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        at = made.broker.schedule.at("app")
        await trio.sleep(10)
        made.apply()
        assert made.broker.cached("app") is token
        assert made.broker.schedule.at("app") == pytest.approx(at)


async def test_a_new_secret_keeps_the_tokens_and_a_new_scope_renews(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        made.configure(ISSUING.replace("test-only-secret", "test-only-other"))
        await trio.sleep(10)
        assert made.broker.cached("app") is token
        made.configure(ISSUING + 'scope = ["read"]\n')
        await until(lambda: len(made.provider.asked) == 2, 10)
        assert made.provider.asked[1][1]["scope"] == "read"
        await trio.sleep(100)
        assert len(made.provider.asked) == 2


async def test_an_edited_url_sets_the_record_aside_and_sends_nothing_of_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        asked = len(made.provider.asked)
        made.configure(REFRESHING.replace("idp.test", "evil.test"))
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.NEEDS_LOGIN
        made.configure(REFRESHING)
        grant = made.broker.grants["app"]
        assert grant.record.access_token is not None
        assert grant.record.access_token.value.reveal() == value
        await until(lambda: made.broker.cached("app"))


async def test_a_vanished_grant_is_not_served_and_comes_back_with_its_tokens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        made.configure(REFRESHING.partition("[grants.app]")[0])
        assert (await failure_of(made)).code is Code.UNKNOWN_GRANT
        assert made.store.dormancy
        made.configure(REFRESHING)
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        assert not made.store.dormancy


async def sweep(made: World) -> None:
    await sweep_dormant(made.store, made.broker.registry, made.clock, EventLog())


async def test_a_record_that_no_grant_used_for_thirty_days_is_deleted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.configure(REFRESHING.partition("[grants.app]")[0])
        autojump_clock.jump(DORMANT_LONGEST)  # nothing is awaited for so long
        with made.broker.registry.reading():  # a reload may be about to use it
            await trio.sleep(1)
            await sweep(made)
        assert made.store.records
        await sweep(made)
        assert not made.store.records


async def test_a_record_that_a_grant_uses_again_is_not_deleted_although_it_is_still_marked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.store.dormancy = dict.fromkeys(made.store.records, 0.0)  # the disk did not take that it is in use again
        await sweep(made)
        assert made.store.records


@pytest.mark.parametrize("damaged", [False, True])
async def test_the_record_of_a_revocation_is_never_deleted(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        await made.broker.revoke("app")
        made.configure(REFRESHING.partition("[grants.app]")[0])
        autojump_clock.jump(2 * DORMANT_LONGEST)  # nothing is awaited for so long
        if damaged:  # nobody can see what it says
            rows = [replace(row, record=None, damage="it was changed") for row in made.store.all()]
            monkeypatch.setattr(made.store, "all", lambda: rows)
        await sweep(made)
        assert made.store.records
