# Law 1, the whole broker on virtual time: one exchange per grant at a time.
from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from brokerd.core.errors import Code
from tests.scenario.laws.helpers import failure_of, until
from tests.scenario.laws.world import ISSUING, PASSWORD, world


async def test_a_hundred_gets_of_a_grant_without_a_token_cause_one_request(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 2.0
        values = []

        async def get() -> None:
            values.append((await made.broker.get("app")).value.reveal())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(get)
        assert len(values) == 100
        assert len(set(values)) == 1
        assert len(made.provider.asked) == 1


async def test_all_waiters_share_a_failure_and_ask_no_second_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 1.0
        made.provider.answers = [(503, {})]
        failures = []

        async def get() -> None:
            failures.append(await failure_of(made))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(get)
        assert {failure.code for failure in failures} == {Code.UNAVAILABLE}
        assert len(made.provider.asked) == 1


async def test_a_caller_who_goes_away_does_not_stop_the_exchange(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 5.0
        with trio.move_on_after(1.0):
            await made.broker.get("app")
        await until(lambda: made.broker.cached("app"))
        assert len(made.provider.asked) == 1


async def test_a_refresh_by_hand_gets_a_token_also_if_the_exchange_under_way_waits_for_its_turn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It has credentials read again, so the exchange that had not sent them yet gives way, and the next one follows."""
    (tmp_path / "PASSWORD").write_text("test-only-password")
    (tmp_path / "PASSWORD").chmod(0o600)
    text = PASSWORD.replace("PASSWORD", str(tmp_path / "PASSWORD"))
    both = text + text[text.index("[grants.app]") :].replace("[grants.app]", "[grants.other]")
    async with world(tmp_path, both, refresher=False) as made, trio.open_nursery() as nursery:
        made.provider.takes = 2.0
        nursery.start_soon(made.broker.get, "other")  # with the same password: one after the other
        await trio.sleep(0.5)
        nursery.start_soon(made.broker.get, "app")
        await trio.sleep(0.5)
        assert await made.broker.refresh("app")
