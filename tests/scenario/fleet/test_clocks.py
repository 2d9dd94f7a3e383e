# Laws 5 and 8 in a fleet: hosts whose clocks differ, by steps or from the start, serve no token longer than it lives.
from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.scenario.fleet.machines import Fleet, Host, until
from tests.scenario.laws.world import LIFETIME


async def served_for(host: Host, token: str) -> float:
    """The last time at which it serves that token."""
    last = trio.current_time()
    while host.served() == token:
        last = trio.current_time()
        await trio.sleep(1.0)
    return last


@pytest.mark.parametrize("ahead", [60.0, -60.0, 110.0, -110.0])
@pytest.mark.parametrize("starts_late", [False, True])
async def test_a_token_is_served_by_no_host_longer_than_it_lives(
    autojump_clock: MockClock, machines: Fleet, ahead: float, starts_late: bool
) -> None:
    one, two = machines.add(), machines.add(ahead=ahead)
    await one.start()
    await machines.settled()
    if not starts_late:
        await two.start()
        await machines.settled()
    token = await one.log_in()
    got = trio.current_time()
    if starts_late:
        await trio.sleep(60)
        await two.start()
    await until(lambda: two.served() == token)
    machines.cluster.down = True  # nobody renews it
    ended = dict[str, float]()

    async def look(host: Host) -> None:
        ended[host.name] = await served_for(host, token)

    async with trio.open_nursery() as nursery:
        for host in (one, two):
            nursery.start_soon(look, host)
    assert max(ended.values()) <= got + LIFETIME
    least = LIFETIME - (2 * 120 if starts_late else 10)
    assert min(ended.values()) >= got + least


async def test_a_step_of_one_hosts_clock_changes_no_life(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    got = trio.current_time()
    await until(lambda: two.served() == token)
    two.clock.ahead -= 5_000
    one.clock.ahead += 5_000
    await trio.sleep(30)
    assert two.served() == one.served() == token
    machines.cluster.down = True
    assert await served_for(two, token) <= got + LIFETIME


@pytest.mark.parametrize("ahead", [3_600.0, -3_600.0])
async def test_a_host_whose_clock_is_far_off_serves_nothing_that_it_cannot_date(
    autojump_clock: MockClock, machines: Fleet, ahead: float
) -> None:
    one, two = machines.add(), machines.add(ahead=ahead)
    await one.start()
    token = await one.log_in()
    got = trio.current_time()
    await trio.sleep(60)
    await two.start()
    machines.cluster.down = True
    while trio.current_time() < got + LIFETIME + 100:
        assert two.served() in (None, token)
        assert two.served() is None or trio.current_time() <= got + LIFETIME
        await trio.sleep(10)


async def test_retry_after_is_obeyed_by_a_host_whose_clock_is_ahead(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = machines.add(), machines.add(ahead=100.0)
    for host in (one, two):
        await host.start()
    await machines.settled()
    await one.log_in()
    await machines.level()
    machines.provider.answers = [(503, {})]
    machines.provider.headers = {"retry-after": "200"}
    asked = len(machines.provider.asked)
    async with trio.open_nursery() as nursery:
        await one.under_way(nursery)
    machines.provider.headers = {}
    at = trio.current_time()
    await one.kill()
    one.cut()
    await two.restart()
    await until(lambda: len(machines.provider.asked) > asked + 1)
    assert trio.current_time() - at >= 195
