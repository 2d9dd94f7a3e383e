# What one host learns or decides is true on all: revocations, failures, breakers, refused passwords, deleted grants.
from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret
from tests.scenario.fleet.machines import Fleet, Host, Loss, until
from tests.scenario.laws.world import PASSWORD, REFRESHING


async def test_a_revocation_ends_it_on_all_hosts_also_where_an_exchange_is_under_way(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    machines.provider.takes = 5.0
    async with trio.open_nursery() as nursery:
        await one.under_way(nursery)
        machines.provider.takes = 0.0
        await two.broker.revoke("app", wait=0.0)
        await until(lambda: one.served() is None, 1.0)
    await until(lambda: one.grant.running is None)
    assert one.grant.record.state is two.grant.record.state is State.REVOKED
    await until(lambda: not one.grant.record.pending_revocations and not two.grant.record.pending_revocations)
    assert machines.provider.valid == set()  # the new refresh token was revoked too
    assert one.served() is two.served() is None


async def failing(host: Host) -> str:
    with pytest.raises(Failure) as caught:
        await host.renewed()
    return str(caught.value)


async def test_hosts_that_wait_share_a_failure_and_its_retry_after(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    asked = len(machines.provider.asked)
    machines.provider.takes, machines.provider.answers = 3.0, [(503, {})]
    machines.provider.headers = {"retry-after": "120"}
    async with trio.open_nursery() as nursery:
        for host in (one, two):
            nursery.start_soon(failing, host)
    assert len(machines.provider.asked) == asked + 1
    at = trio.current_time()
    machines.provider.headers = {}
    await until(lambda: len(machines.provider.asked) > asked + 1)
    assert trio.current_time() - at >= 115


async def test_a_host_that_may_not_begin_tells_nobody_that_it_failed(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    two.losses += [Loss("claim", "refused", 100)]
    assert "no leader" in await failing(two)
    await machines.level()
    assert one.grant.record.last_error is None
    assert one.grant.record.retry is None
    assert not two.grant.unstored
    two.losses.clear()
    renewed = await one.renewed()
    await until(lambda: two.served() == renewed)
    assert two.grant.record.last_error is None


async def test_a_breaker_that_opens_is_open_everywhere_also_after_a_start(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    machines.provider.answers = [(503, {})] * 20
    await until(lambda: one.providers["idp"].breaker.is_open)
    await until(lambda: two.providers["idp"].breaker.is_open)
    late = await machines.add().start()
    assert late.providers["idp"].breaker.is_open
    machines.provider.answers.clear()
    await until(lambda: not one.providers["idp"].breaker.is_open)
    await until(lambda: not two.providers["idp"].breaker.is_open and not late.providers["idp"].breaker.is_open)


async def test_a_host_that_cannot_reach_the_provider_keeps_no_other_host_from_asking_it(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    two.line.is_cut = True
    with trio.fail_after(600.0):
        while not two.providers["idp"].breaker.is_open:
            with contextlib.suppress(Failure):
                await two.renewed()
            await trio.sleep(1.0)
    await machines.level()
    assert not one.providers["idp"].breaker.is_open
    renewed = await one.renewed()
    await until(lambda: two.served() == renewed)


async def test_a_refused_password_is_sent_by_no_other_host(autojump_clock: MockClock, machines: Fleet) -> None:
    file = machines.folder / "password"
    file.write_text("wrong")
    file.chmod(0o600)
    text = PASSWORD.replace("PASSWORD", str(file))
    hosts = [await machines.add(text=text).start() for _ in range(2)]
    await machines.settled()
    with pytest.raises(Failure):
        await hosts[0].broker.get("app")
    assert machines.provider.count("password") == 1
    await machines.level()
    for host in (hosts[1], await machines.add(text=text).start()):
        with pytest.raises(Failure):
            await host.broker.get("app")
    await trio.sleep(600)
    assert machines.provider.count("password") == 1


async def test_what_is_forgotten_on_one_host_is_gone_from_all(autojump_clock: MockClock, machines: Fleet) -> None:
    both = REFRESHING + REFRESHING[REFRESHING.index("[grants.app]") :].replace("[grants.app]", "[grants.other]")
    one, two = [await machines.add(text=text).start() for text in (REFRESHING, both)]
    await machines.settled()
    await two.broker.import_token("other", Secret(machines.provider.new_refresh_token()))
    await two.broker.get("other")
    await machines.level()
    assert len(machines.rows("record")) == 1
    await one.broker.forget("other")
    await machines.level()
    await trio.sleep(60)
    with pytest.raises(Failure, match=r"needs a login|no token"):
        await two.broker.get("other", wait=0.0)


async def test_a_full_etcd_serves_and_sends_nothing_and_goes_on_when_there_is_space(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    asked = len(machines.provider.asked)
    machines.cluster.server.full = True
    assert "space" in await failing(two)
    await trio.sleep(120)
    assert two.store.etcd_state().full
    assert one.served() == two.served() == token
    assert len(machines.provider.asked) == asked
    machines.cluster.server.full = False
    await until(lambda: two.served() != token)
    assert not two.store.etcd_state().full
    assert machines.provider.reused == 0


async def test_a_full_etcd_in_the_middle_of_an_exchange_loses_nothing(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    await until(lambda: two.served() == token)
    machines.provider.takes = 3.0
    async with trio.open_nursery() as nursery:
        await one.under_way(nursery)
        machines.cluster.server.full = True
    assert one.grant.unstored
    assert one.served() != token
    await trio.sleep(60)
    machines.cluster.server.full = False
    await until(lambda: two.served() == one.served() != token)
    assert machines.provider.reused == 0


async def test_a_change_of_another_host_at_the_same_generation_is_not_overwritten(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    """While a rejection is confirmed, the record is read, and what it says besides counts as well."""
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    machines.cluster.link("web-1").delay = 3.0
    mine = one.grant.record
    await one.store.write(replace(mine, subject="alice"), one.place.fingerprint, mine.generation, concludes=False)
    assert await two.grant.confirm(two.store, mine.generation)
    await two.grant.change(two.store, lambda record: replace(record, failures=record.failures + 1))
    await machines.level()
    await until(lambda: one.grant.record.failures == 1)
    assert one.grant.record.subject == two.grant.record.subject == "alice"
