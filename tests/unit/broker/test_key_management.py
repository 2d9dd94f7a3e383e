# Each wrong passphrase makes the next try wait longer; until then none is even looked at. On virtual time.
from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from brokerd.broker.key_management import DELAY_LONGEST, KeyManager
from brokerd.core.errors import Code, Failure
from brokerd.core.ports import StoreUnavailable, WrongKey
from brokerd.core.secret import Secret, SecretSource
from brokerd.edge.store import passphrase
from brokerd.telemetry.event_log import EventLog

RIGHT, WRONG = Secret("test-only-correct-horse"), Secret("test-only-wrong-staple")


class Locked:
    """A store, a broker and a daemon in one, which the one passphrase opens. `tried`: when a key was tried on it."""

    def __init__(self) -> None:
        self.passphrase = passphrase.fresh()
        self.locked, self.holds_keys = True, False
        self.is_full, self.slow = False, 0.0
        self.grants: dict[str, object] = {}
        self.tried: list[float] = []
        self._kek = passphrase.derive(RIGHT, self.passphrase)

    async def key_sources(self) -> tuple[SecretSource, ...]:
        return ()

    async def load_grants(self) -> None:
        """There is nothing to hold."""

    async def unlock(self, kek: bytes, _how: str) -> None:
        self.tried.append(trio.current_time())
        if kek != self._kek:
            raise WrongKey("the key is not the one")
        self.holds_keys = True
        if self.is_full:
            raise StoreUnavailable("the disk is full")
        await trio.sleep(self.slow)

    def unlocked(self) -> None:
        self.locked = False

    async def lock(self) -> None:
        self.holds_keys = False

    async def drop_secrets(self) -> None:
        """There was nothing to hold."""


class Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "MEMORY", 64)


async def tried(key_manager: KeyManager, text: Secret) -> Failure | None:
    try:
        await key_manager.unlock(text)
    except Failure as failure:
        return failure
    return None


async def test_each_wrong_passphrase_doubles_the_wait_for_the_next_up_to_five_minutes(
    quick: None, autojump_clock: trio.testing.MockClock
) -> None:
    world: Any = Locked()
    key_manager = KeyManager(world, world, world, EventLog(Silent()))
    waits = []
    for _ in range(11):
        failure = await tried(key_manager, WRONG)
        assert failure is not None
        assert failure.code is Code.DENIED
        assert failure.retry_after is not None
        waits.append(failure.retry_after)
        await trio.sleep(failure.retry_after - 0.01)
        early = await tried(key_manager, RIGHT)
        assert early is not None
        assert early.code is Code.LIMIT
        assert early.retry_after is not None
        assert math.isclose(early.retry_after, 0.01, abs_tol=1e-6)
        await trio.sleep(0.02)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, DELAY_LONGEST]
    assert len(world.tried) == 11, "what came too early was not tried"
    assert await tried(key_manager, RIGHT) is None
    assert not world.locked


async def test_guesses_at_the_same_time_wait_for_one_another(
    quick: None, autojump_clock: trio.testing.MockClock
) -> None:
    world: Any = Locked()
    key_manager = KeyManager(world, world, world, EventLog(Silent()))
    codes = []

    async def guess() -> None:
        failure = await tried(key_manager, WRONG)
        assert failure is not None
        codes.append(failure.code)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(guess)
    assert sorted(codes) == [Code.DENIED] + [Code.LIMIT] * 19
    assert len(world.tried) == 1


async def test_an_unlock_that_fails_or_is_given_up_leaves_no_keys_in_memory(
    quick: None, autojump_clock: trio.testing.MockClock
) -> None:
    world: Any = Locked()
    key_manager = KeyManager(world, world, world, EventLog(Silent()))
    world.is_full = True
    failure = await tried(key_manager, RIGHT)
    assert failure is not None
    assert (failure.code, world.holds_keys, world.locked) == (Code.UNAVAILABLE, False, True)
    world.is_full, world.slow = False, 10.0
    with trio.move_on_after(1.0):
        await tried(key_manager, RIGHT)
    assert (world.holds_keys, world.locked) == (False, True)
    assert await tried(key_manager, RIGHT) is None
    assert (world.holds_keys, world.locked) == (True, False)


async def test_a_lock_that_was_begun_is_finished_also_if_who_asked_goes_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    done: list[str] = []

    class Busy:
        """Exchanges are under way for a while; `locked` is true from the first moment on."""

        locked = False

        async def lock(self) -> None:
            self.locked = True
            await trio.sleep(5)
            done.append("broker")

    class Rest:
        async def lock(self) -> None:
            done.append("store")

        async def drop_secrets(self) -> None:
            done.append("daemon")

    rest: Any = Rest()
    busy: Any = Busy()
    with trio.move_on_after(1):
        await KeyManager(rest, busy, rest, EventLog(Silent())).lock()
    assert done == ["broker", "store", "daemon"]


@pytest.mark.parametrize("how", ["", "argon2id 3 4 65536", "scrypt 3 4 65536 00", "argon2id 3 4 99999999 00", "x"])
def test_what_was_changed_in_the_store_is_not_derived_from(how: str) -> None:
    with pytest.raises(Exception, match="was changed in the store"):
        passphrase.derive(RIGHT, how)
