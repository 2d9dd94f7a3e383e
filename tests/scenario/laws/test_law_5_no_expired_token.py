# Law 5, the whole broker on virtual time: an expired token is never served.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code, Failure
from brokerd.core.ports import TransportError
from brokerd.core.secret import sha256_of
from tests.scenario.laws.helpers import failure_of
from tests.scenario.laws.world import ISSUING, LIFETIME, world


async def test_an_expired_token_is_not_served_even_if_nobody_could_renew_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        await made.broker.get("app")
        await trio.sleep(LIFETIME - 0.01)
        assert made.broker.cached("app") is not None
        await trio.sleep(0.02)
        assert made.broker.cached("app") is None


async def test_in_an_outage_the_valid_token_goes_on_being_served_with_its_true_expiry(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        made.provider.answers = [TransportError("connection refused", sent=False)] * 1000
        await trio.sleep(LIFETIME - 1)
        assert made.broker.cached("app") is token
        assert made.broker.expires_at(token) == pytest.approx(1_800_000_000 + LIFETIME, abs=1)
        await trio.sleep(2)
        failure = await failure_of(made, wait=1)
        assert failure.code is Code.UNAVAILABLE
        assert failure.retry_after is not None


async def test_min_ttl_and_refused_bring_an_exchange_forward_once_per_third_of_a_lifetime(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        token = await made.broker.get("app")
        await trio.sleep(10)
        second = await made.broker.get("app", refused=sha256_of(token.value.reveal()))
        assert second.value != token.value
        failure = await failure_of(made, refused=sha256_of(second.value.reveal()))
        assert failure.code is Code.UNAVAILABLE
        assert failure.retry_after == pytest.approx(LIFETIME / 3, abs=1)
        assert len(made.provider.asked) == 2
        await trio.sleep(LIFETIME / 3)
        await made.broker.get("app", refused=sha256_of(second.value.reveal()))
        assert len(made.provider.asked) == 3


async def test_a_refresh_by_hand_that_failed_does_not_keep_the_next_one_waiting(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Who has put right what was wrong wants to see at once that it works."""
    async with world(tmp_path, ISSUING, refresher=False) as made:
        first = await made.broker.get("app")
        made.provider.answers = [TransportError("connection refused", sent=False)]
        with pytest.raises(Failure):
            await made.broker.refresh("app")
        assert await made.broker.refresh("app") is not first
        with pytest.raises(Failure):
            await made.broker.refresh("app")
        assert len(made.provider.asked) == 3, "the last one began no exchange"


async def test_a_min_ttl_above_half_of_the_lifetime_is_a_bad_request(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        await made.broker.get("app")
        assert (await failure_of(made, min_ttl=LIFETIME / 2 + 1)).code is Code.BAD_REQUEST
