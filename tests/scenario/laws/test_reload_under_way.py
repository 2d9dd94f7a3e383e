# What a reload does to work under way: to a lock that came while the files were read, to a password that is about to be
# sent, and to grants that leave and come back.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.reload import admit, fingerprint_of
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.record import Record
from tests.scenario.laws.helpers import imported, password_file, until
from tests.scenario.laws.world import LIFETIME, PASSWORD, PROVIDER, REFRESHING, world


async def test_a_reload_that_a_lock_overtook_brings_nothing_back(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        await made.broker.lock()
        with pytest.raises(Failure) as raised:
            made.apply()  # its files were read before
        assert raised.value.code is Code.LOCKED
        assert made.broker.cached("app") is None


async def test_a_reload_while_a_password_is_about_to_leave_sends_no_empty_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    secret = password_file(tmp_path, "test-only-password")
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(secret)), refresher=False) as made:

        async def reload(_: Record) -> None:
            made.store.before_write = None
            made.apply()

        made.store.before_write = reload  # it is noted, before it is sent, that it may be refused
        await made.broker.get("app", wait=0.5)
    assert {fields["password"] for _, fields in made.provider.asked} == {"test-only-password"}


async def test_a_refresh_by_hand_while_a_password_is_about_to_leave_fails_for_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It has credentials read again, and they are the same."""
    secret = password_file(tmp_path, "test-only-password")
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(secret)), refresher=False) as made:

        async def refresh(_: Record) -> None:
            made.store.before_write = None
            nursery.start_soon(made.broker.refresh, "app")
            await trio.sleep(0.1)

        made.store.before_write = refresh
        async with trio.open_nursery() as nursery:
            await made.broker.get("app", wait=0.5)
    assert [fields["password"] for _, fields in made.provider.asked] == ["test-only-password"]


async def test_a_password_that_changes_while_it_is_about_to_leave_is_not_sent(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    secret = password_file(tmp_path, "test-only-wrong")
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(secret)), refresher=False) as made:

        async def reload(_: Record) -> None:
            made.store.before_write = None
            secret.write_text("test-only-password")
            made.apply()

        made.store.before_write = reload
        with pytest.raises(Failure):  # what was noted is of the one before
            await made.broker.get("app", wait=0.5)
        await made.broker.get("app", wait=60.0)
    assert [fields["password"] for _, fields in made.provider.asked] == ["test-only-password"]


async def test_a_grant_that_left_as_its_secret_was_away_is_the_same_one_once_it_can_be_read(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    client = tmp_path / "client"
    client.write_text("app")
    client.chmod(0o600)
    text = REFRESHING.replace('client_id = "app"', f'client_id = {{ file = "{client}" }}')
    async with world(tmp_path, text, refresher=False) as made:
        await imported(made)
        before, settings = made.broker.grant("app"), made.broker.grant("app").settings
        made.provider.takes = 5.0
        asked = len(made.provider.asked)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.broker.refresh, "app")
            await until(lambda: len(made.provider.asked) == asked + 1)
            client.unlink()
            made.apply()
            assert made.broker.grant("app").blocked
            nursery.cancel_scope.cancel()
        client.write_text("app")
        client.chmod(0o600)
        admit(made.broker, made.broker.grant("app"), fingerprint_of(settings), made.store.all())
        assert made.broker.grant("app") is before
        await made.broker.get("app")
        assert (len(made.provider.asked), made.provider.reused) == (asked + 1, 0), "one exchange (law 1)"


async def test_a_grant_that_comes_back_while_nothing_is_under_way_is_renewed_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        app, asked = made.broker.grant("app"), len(made.provider.asked)
        with made.broker.registry.reading():  # a reload looks for its record
            made.configure(PROVIDER)
            made.configure(REFRESHING)
        assert made.broker.grant("app") is app
        assert made.store.dormancy == {}
        await until(lambda: len(made.provider.asked) > asked, LIFETIME)
