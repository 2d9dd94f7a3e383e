# Law 6, the whole broker on virtual time: tokens are renewed ahead of their end.
from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from tests.scenario.laws.world import ISSUING, LIFETIME, world


async def test_a_token_is_renewed_at_about_two_thirds_and_nobody_waits(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        for _ in range(200):
            await trio.sleep(LIFETIME / 10)
            assert made.broker.cached("app") is not None
        gaps = [b - a for a, b in zip(made.provider.times, made.provider.times[1:], strict=False)]
        assert len(gaps) > 20
        assert all(0.66 * LIFETIME < gap < 0.76 * LIFETIME for gap in gaps)


async def test_permanent_failure_does_not_hammer(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(500, {})] * 100_000
        await trio.sleep(86_400)
        assert 200 < len(made.provider.asked) < 400


async def test_tokens_that_are_dead_on_arrival_do_not_hammer(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.lifetime = 0
        await trio.sleep(86_400)
        assert len(made.provider.asked) < 400
        words = str(made.broker.status("app")["last_error"])
        assert words.endswith(
            "expired: the provider says that the token lives 0 s; if that is wrong, write lifetime on the grant"
        )


async def test_a_grant_on_demand_is_renewed_only_when_somebody_asks(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING + "on_demand = true\n") as made:
        await trio.sleep(10 * LIFETIME)
        assert made.provider.asked == []
        await made.broker.get("app")
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == 1
