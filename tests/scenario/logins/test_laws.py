# The laws where a person logs in while the grant goes on living: on virtual time, with the password grant, which asks
# for one thing.
from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.logins import LONGEST, MOST_OF_USER, Login
from brokerd.core.errors import Code, Failure
from brokerd.core.secret import Secret
from tests.scenario.laws.conftest import _quiet
from tests.scenario.laws.world import PASSWORD, TestEntropy, World, world

__all__ = ["_quiet"]
ASKED = PASSWORD.replace(', password = { file = "PASSWORD" }', "")
UID = 1_000


@asynccontextmanager
async def asked(tmp_path: Path, text: str = ASKED) -> AsyncIterator[World]:
    async with world(tmp_path, text) as made:
        yield made


async def begun(made: World, name: str = "app") -> Login:
    """A login that waits for the password."""
    login = made.broker.logins.begin(made.broker.grant(name), UID)
    await login.wait_past(0, 10.0)
    assert login.prompt is not None
    assert login.prompt.kind == "password"
    return login


def give(made: World, login: Login) -> None:
    login.answer(login.step, {"password": Secret(made.provider.password)})


async def ended(login: Login, within: float = 60.0) -> Failure | None:
    try:
        await login.wait_past(login.step, within)
    except Failure as failure:
        return failure
    assert login.result is not None, "it has not ended"
    return None


async def test_what_a_login_brings_waits_for_the_exchange_under_way(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with asked(tmp_path) as made:
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        await made.broker.get("app")
        login = await begun(made)
        made.provider.takes = 5.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.broker.refresh, "app")
            await trio.sleep(1)
            made.provider.takes = 0.0
            give(made, login)
            assert await ended(login) is None
        record = made.broker.grant("app").record
        assert [each.generation for each in made.store.writes] == [1, 2, 2, 3, 4]  # import, got, again, renewed, login
        assert record.refresh_token is not None
        assert record.refresh_token.value.reveal() in made.provider.valid
        assert made.provider.reused == 0


async def test_once_the_password_has_left_the_tokens_are_stored_whoever_goes_away(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asked(tmp_path) as made:
        login = await begun(made)
        made.provider.takes = 5.0
        give(made, login)
        await trio.sleep(1)
        made.broker.logins.forget(login.id)
        assert await ended(login) is None
        assert made.store.writes[-1].refresh_token is not None
        assert made.broker.cached("app") is not None


async def test_who_goes_away_before_has_changed_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with asked(tmp_path) as made:
        login = await begun(made)
        made.broker.logins.forget(login.id)
        failure = await ended(login)
        assert failure is not None
        assert "has disconnected" in failure.message
        assert (made.provider.asked, made.store.writes) == ([], [])


async def test_a_login_that_was_begun_before_does_not_undo_a_revocation(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asked(tmp_path) as made:
        waiting, under_way = await begun(made), made.broker
        failure: Failure | None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(under_way.revoke, "app")
            failure = await ended(waiting)
        assert failure is not None
        assert "revoked meanwhile" in failure.message

    async with asked(tmp_path) as made:
        login = await begun(made)
        made.provider.takes = 5.0
        give(made, login)
        await trio.sleep(1)
        made.provider.takes = 0.0
        await made.broker.revoke("app")
        failure = await ended(login)
        assert failure is not None
        assert made.broker.status("app")["state"] == "revoked"
        with trio.fail_after(60):
            while made.broker.status("app")["pending_revocations"]:
                await trio.sleep(1)
        assert len(made.provider.revoked) == 2, "what the login brought is given back"


async def test_a_login_ends_a_revocation_that_was_there_before(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with asked(tmp_path) as made:
        await made.broker.revoke("app")
        login = await begun(made)
        give(made, login)
        assert await ended(login) is None
        assert made.broker.status("app")["state"] == "ready"


async def test_a_login_ends_no_revocation_that_came_while_its_tokens_were_on_their_way_whatever_was_there_before(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asked(tmp_path) as made:
        await made.broker.revoke("app")
        login = await begun(made)
        made.provider.takes = 5.0
        give(made, login)
        await trio.sleep(1)
        await made.broker.revoke("app")
        failure = await ended(login)
        assert failure is not None
        assert made.broker.status("app")["state"] == "revoked"
        with trio.fail_after(60):
            while made.broker.status("app")["pending_revocations"]:
                await trio.sleep(1)
        assert len(made.provider.revoked) == 2, "what the login brought is given back"


async def test_nobody_takes_longer_than_a_quarter_of_an_hour(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with asked(tmp_path) as made:
        start = trio.current_time()
        failure = await ended(await begun(made), 2 * LONGEST)
        assert failure is not None
        assert (failure.code, trio.current_time() - start) == (Code.UNAVAILABLE, LONGEST)


async def test_tokens_that_cannot_be_stored_are_served_and_said_to_be_unstored(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asked(tmp_path) as made:
        login = await begun(made)
        made.store.broken = True
        give(made, login)
        assert await ended(login) is None
        assert login.result is not None
        assert login.result["stored"] is False
        assert made.broker.cached("app") is not None


async def test_a_grant_that_leaves_and_comes_back_during_a_login_gets_what_it_brings(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    other = ASKED[ASKED.index("[grants.app]") :].replace("grants.app", "grants.other")
    without = ASKED[: ASKED.index("[grants.app]")] + other
    async with asked(tmp_path, ASKED + other) as made:
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        await made.broker.get("app")
        login = await begun(made)
        made.configure(without)
        await trio.sleep(1)
        made.configure(ASKED + other)
        give(made, login)
        assert await ended(login) is None
        record = made.broker.grant("app").record
        assert record.refresh_token is not None
        assert record.refresh_token.value.reveal() in made.provider.valid
        assert record.generation == made.store.writes[-1].generation
        await made.broker.refresh("app")
        assert made.provider.reused == 0


async def test_what_a_login_brings_to_a_grant_that_left_is_not_the_grants(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asked(tmp_path) as made:
        login = await begun(made)
        made.configure(ASKED[: ASKED.index("[grants.app]")])
        give(made, login)
        failure = await ended(login)
        assert failure is not None
        assert "begin the login again" in failure.message
        assert list(made.broker.registry.all()) == []


async def test_a_user_has_few_logins_at_once_and_a_grant_one(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(TestEntropy, "bytes", lambda self, n: next(numbers).to_bytes(n))
    table = ASKED[ASKED.index("[grants.app]") :]
    names = [f"app-{number}" for number in range(MOST_OF_USER + 1)]
    text = ASKED + "".join(table.replace("grants.app", f"grants.{name}") for name in names)
    async with asked(tmp_path, text) as made:
        first = await begun(made)
        again = await begun(made)
        failure = await ended(first)
        assert failure is not None
        assert "another login for this grant was begun" in failure.message
        made.broker.logins.forget(first.id)
        for name in names[: MOST_OF_USER - 1]:
            await begun(made, name)
        with pytest.raises(Failure) as caught:
            made.broker.logins.begin(made.broker.grant(names[-1]), UID)
        assert caught.value.code is Code.LIMIT
        made.broker.logins.begin(made.broker.grant(names[-1]), UID + 1)
        with pytest.raises(Failure, match="no such login"):
            made.broker.logins.find(again.id, UID + 1)
        assert made.broker.logins.find(again.id, UID) is again
