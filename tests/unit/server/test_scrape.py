# What a scrape shows of grants and providers, on virtual time: times that come and go with the trouble, by the wall
# clock of now; and that others have their turn while it is written.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from brokerd.broker.gauges import TURN
from brokerd.server.scrape import Scrape
from tests.fleet_of_two import AWAY, SINCE, FleetOfTwo
from tests.scenario.laws.helpers import until
from tests.scenario.laws.world import ISSUING, LIFETIME, PROVIDER, WALL, World, world

ON_DEMAND = ISSUING + "on_demand = true\n"
GRANT = ISSUING.removeprefix(PROVIDER).replace("app]", "app-{}]").replace("{ ", "{{ ").replace(" }", " }}")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def scraped(made: World) -> dict[str, float]:
    """Name of the metric without its beginning → value: each is about one grant or provider here."""
    broker = made.broker
    text = await Scrape(broker, broker.events, broker.metrics).text(lambda _: True)
    return {
        sample.name.removeprefix("brokerd_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_times_of_a_grant_are_those_of_the_wall_clock_of_now(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        issued = made.clock.now().wall
        found = await scraped(made)
        assert found["grant_ready"] == 1
        assert found["grant_expiration_timestamp_seconds"] == pytest.approx(issued + LIFETIME, abs=1)
        assert issued < found["grant_renewal_timestamp_seconds"] < issued + LIFETIME
        made.clock.wall_off = 5_000.0
        stepped = await scraped(made)
        for name in ("grant_expiration_timestamp_seconds", "grant_renewal_timestamp_seconds"):
            assert stepped[name] == pytest.approx(found[name] + 5_000, abs=1)


async def test_the_fleet_is_there_as_this_host_sees_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        assert not [name for name in await scraped(made) if name.startswith("fleet")]
        made.broker.fleet = fleet = FleetOfTwo()
        found = await scraped(made)
        names = ("members", "etcd_up", "etcd_full", "watch_lag_seconds", "claims", "unwritten_records")
        assert [found[f"fleet_{name}"] for name in names] == [2, 1, 0, 0.25, 1, 0]
        assert "fleet_etcd_failing_since_timestamp_seconds" not in found
        assert found["store_adopted"] == 1
        text = await Scrape(made.broker, made.broker.events, made.broker.metrics).text(lambda _: False)
        assert 'brokerd_fleet_transactions_total{outcome="unanswered"} 2\n' in text
        fleet.etcd = replace(AWAY, full=True, adopted=False, unwritten=3)
        found = await scraped(made)
        assert [found[f"fleet_{name}"] for name in names] == [2, 0, 1, 0.25, 1, 3]
        assert found["fleet_etcd_failing_since_timestamp_seconds"] == SINCE
        assert found["store_adopted"] == 0


async def test_what_fails_is_there_since_it_fails_and_gone_when_it_works(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(503, {}) for _ in range(6)]
        await until(lambda: made.broker.grants["app"].record.failures == 6)
        found = await scraped(made)
        assert found["grant_ready"] == 0
        assert found["grant_failing_since_timestamp_seconds"] == pytest.approx(WALL, abs=2)
        assert found["provider_failing_since_timestamp_seconds"] == pytest.approx(WALL, abs=2)
        assert found["provider_breaker_open"] == 1
        assert "provider_last_ok_timestamp_seconds" not in found
        await until(lambda: made.broker.grants["app"].record.failures == 0)
        found = await scraped(made)
        assert (found["grant_ready"], found["provider_breaker_open"]) == (1, 0)
        assert found["provider_last_ok_timestamp_seconds"] == pytest.approx(made.clock.now().wall, abs=2)
        assert not [name for name in found if "failing_since" in name]


async def test_a_grant_whose_token_is_got_on_demand_is_ready_without_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ON_DEMAND) as made:
        found = await scraped(made)
        assert found["grant_ready"] == 1
        assert "grant_expiration_timestamp_seconds" not in found
        await made.broker.revoke("app", local=True)
        assert (await scraped(made))["grant_ready"] == 0


async def test_others_have_their_turn_while_a_scrape_is_written(autojump_clock: MockClock, tmp_path: Path) -> None:
    number, turns = 20 * TURN, 0
    text = PROVIDER + "".join(GRANT.format(each) for each in range(number))
    async with world(tmp_path, text, refresher=False) as made, trio.open_nursery() as nursery:

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(count)
        await scraped(made)
        nursery.cancel_scope.cancel()
    assert turns >= number / TURN - 1
