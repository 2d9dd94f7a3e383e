# Laws 1 to 3 in a fleet: who may send the stored refresh token, while answers of etcd are lost and hosts die.
from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.ports import ChangedElsewhere, HeldElsewhere, StoreUnavailable
from brokerd.edge.fleet.lease import LIFE
from tests.scenario.fleet.machines import Fleet, Host, Loss, until


async def test_a_rotation_on_one_host_is_served_by_all(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two, three = await machines.started(3)
    first = await one.log_in()
    await until(lambda: two.served() == first == three.served())
    renewed = await two.renewed()
    await until(lambda: one.served() == renewed == three.served())
    assert machines.provider.reused == 0
    assert machines.rows("claim") == machines.rows("journal") == []


async def test_hosts_that_are_asked_at_the_same_time_send_one_request_and_share_its_result(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    hosts = await machines.started(3)
    await hosts[0].log_in()
    await machines.level()
    asked, found = len(machines.provider.asked), set[str]()

    async def renew(host: Host) -> None:
        found.add(await host.renewed())

    machines.provider.takes = 3.0
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(renew, host)
    assert len(found) == 1
    assert len(machines.provider.asked) == asked + 1


async def held(machines: Fleet, host: Host, nursery: trio.Nursery) -> trio.Event:
    """An exchange of the host is under way at the provider, until the event is set."""
    machines.provider.gate = gate = trio.Event()
    await host.under_way(nursery)
    return gate


async def test_a_claim_whose_answer_is_lost_sends_nothing_and_is_deleted(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    token = await one.log_in()
    sent = one.line.sent
    one.losses += [Loss("claim", "later", 1, 5.0), Loss("claim", "lost-before", 5)]
    with pytest.raises(StoreUnavailable):
        await one.begin()
    one.losses.clear()
    assert machines.rows("claim") == []
    await until(lambda: machines.rows("claim") and machines.rows("journal"))
    await until(lambda: not machines.rows("claim"), 5.0)  # and the row says that nothing was sent
    assert one.line.sent == sent
    assert one.grant.record.interrupted is None
    assert one.served() == token
    assert await two.renewed() != token
    assert machines.provider.reused == 0


async def test_a_claim_that_was_carried_out_and_whose_answer_never_comes_locks_nobody_out(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    one.losses.append(Loss("claim", "lost-after", 9))
    with pytest.raises(StoreUnavailable):
        await one.begin()
    one.losses.clear()
    await until(lambda: not machines.rows("claim"), 5.0)
    await machines.level()
    await two.begin()


async def test_a_claim_that_cannot_be_ended_with_its_exchange_is_ended_later(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await one.begin()
    one.cut()
    await one.store.end("app", one.place.fingerprint, unstored=False)
    one.heal()
    await until(lambda: not machines.rows("claim"), LIFE - 1.0)
    await machines.level()
    await two.begin()


async def test_an_exchange_keeps_its_claim_when_a_change_beside_it_is_overtaken(
    autojump_clock: MockClock, machines: Fleet, nursery: trio.Nursery
) -> None:
    """Another host changed the record while this one could not tell etcd of its own change."""
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    gate = await held(machines, one, nursery)
    one.cut()
    await one.grant.change(one.store, lambda record: record)
    assert one.grant.unstored
    await two.grant.change(two.store, lambda record: record)
    one.heal()
    await until(lambda: not one.grant.unstored, 5.0)
    await trio.sleep(3.0)  # claims that nobody needs are deleted meanwhile
    assert (len(machines.rows("claim")), len(machines.rows("journal"))) == (1, 1)
    gate.set()
    await until(lambda: one.served() == two.served() and not machines.rows("claim"), 60.0)
    assert machines.provider.reused == 0


async def test_a_claim_that_was_carried_out_late_and_is_used_after_all_stays(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    one.losses += [Loss("claim", "later", 1, 5.0), Loss("claim", "lost-before", 5)]
    with pytest.raises(StoreUnavailable):
        await one.begin()
    one.losses.clear()
    await until(lambda: any(row in one.store.shared.mirror.pairs for row in machines.rows("claim")))
    await one.begin()
    await trio.sleep(5.0)
    assert machines.rows("claim")
    assert machines.rows("journal")
    with pytest.raises(HeldElsewhere):
        await two.begin()


@pytest.mark.parametrize("kind", ["lost-after", "lost-before", "later"])
async def test_an_outcome_whose_answer_is_lost_once_is_written_once(
    autojump_clock: MockClock, machines: Fleet, kind: str
) -> None:
    one, two = await machines.started(2)
    first = await one.log_in()
    one.losses.append(Loss("outcome", kind, 1, 1.0))
    renewed = await one.renewed()
    await until(lambda: two.served() == renewed)
    await until(lambda: not one.grant.unstored)
    assert renewed != first
    assert machines.rows("claim") == machines.rows("journal") == []
    assert await two.renewed() != renewed
    assert machines.provider.reused == 0


@pytest.mark.parametrize("kind", ["lost-after", "lost-before", "later"])
@pytest.mark.parametrize("dies", [False, True])
async def test_an_outcome_whose_answer_never_comes_is_kept_here_and_written_later(
    autojump_clock: MockClock, machines: Fleet, kind: str, dies: bool
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    one.losses += [Loss("outcome", kind, 1, 6.0), Loss("outcome", "lost-before", 9)]
    renewed = await one.renewed()
    assert one.grant.unstored
    if dies:
        await one.restart()
        assert one.served() == renewed
    one.losses.clear()
    await until(lambda: not one.grant.unstored)
    await until(lambda: two.served() == renewed)
    await until(lambda: machines.rows("journal") == [])
    await until(lambda: one.store.etcd_state().unwritten == 0)
    assert await two.renewed() != renewed
    assert machines.provider.reused == 0


@pytest.mark.parametrize("dies", [False, True])
async def test_etcd_that_goes_away_in_the_middle_of_an_exchange_loses_nothing(
    autojump_clock: MockClock, machines: Fleet, dies: bool
) -> None:
    one, two = await machines.started(2)
    first = await one.log_in()
    async with trio.open_nursery() as nursery:
        gate = await held(machines, one, nursery)
        one.cut()
        await trio.sleep(3 * LIFE)  # the lease has ended
        gate.set()
        machines.provider.gate = None
        await until(lambda: one.grant.unstored)
    renewed = one.served()
    assert renewed not in (None, first)
    asked = len(machines.provider.asked)
    if dies:
        await one.kill()
        one.cut()
        await one.start()
        assert one.served() == renewed
    assert two.served() == first
    await trio.sleep(60)
    assert len(machines.provider.asked) == asked
    one.heal()
    await until(lambda: two.served() == renewed)
    await until(lambda: not one.grant.unstored)
    assert machines.rows("claim") == machines.rows("journal") == []
    await until(lambda: one.store.etcd_state().unwritten == 0)
    assert await two.renewed() != renewed
    assert machines.provider.reused == 0


async def test_an_outcome_counts_though_the_lease_has_ended_if_nobody_took_over(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    first = await one.log_in()
    async with trio.open_nursery() as nursery:
        gate = await held(machines, one, nursery)
        one.cut()
        await until(lambda: not machines.rows("claim"))
        one.heal()
        await machines.settled()
        assert machines.rows("journal")
        machines.provider.gate = None
        gate.set()
    await until(lambda: two.served() == one.served() != first)
    assert not one.grant.unstored
    assert machines.rows("journal") == []
    assert machines.provider.reused == 0


async def test_an_outcome_does_not_count_while_or_after_another_host_took_over(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    await one.begin()
    one.cut()
    await until(lambda: not machines.rows("claim"))
    await two.begin(patient=False)
    one.heal()
    await machines.settled()
    mine = one.grant.record
    with pytest.raises(StoreUnavailable):
        await one.store.write(mine, one.place.fingerprint, mine.generation, concludes=True)
    theirs = replace(two.grant.record, generation=mine.generation + 1)
    await two.store.write(theirs, two.place.fingerprint, mine.generation, concludes=True)
    await machines.level()
    assert machines.rows("journal") == machines.rows("claim") == []


async def test_an_outcome_counts_not_even_if_its_host_has_not_seen_that_another_one_took_over(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    await one.begin()
    one.cut()
    await until(lambda: not machines.rows("claim"))
    machines.cluster.link(one.way).delay = 1_000.0
    one.heal()
    await until(
        lambda: one.store.shared.mirror.away is None and one.store.lease.number in machines.cluster.server.leases
    )
    await two.begin(patient=False)
    theirs = [machines.cluster.server.pairs[row] for row in machines.rows("journal")]
    mine = one.grant.record
    with pytest.raises((StoreUnavailable, ChangedElsewhere)):
        await one.store.write(mine, one.place.fingerprint, mine.generation, concludes=True)
    assert [machines.cluster.server.pairs[row] for row in machines.rows("journal")] == theirs != []


async def test_the_host_that_takes_over_waits_until_no_answer_can_come(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    await one.begin(seconds=100.0)
    began = trio.current_time()
    await one.kill()
    with pytest.raises(HeldElsewhere):
        await two.begin()
    await until(lambda: not machines.rows("claim"))
    await machines.level()
    ended = trio.current_time()
    assert ended - began <= LIFE + 1
    with pytest.raises(StoreUnavailable, match=f"{one.name} began an exchange"):
        await two.begin()
    while True:
        with contextlib.suppress(StoreUnavailable):
            await two.begin()
            break
        await trio.sleep(1.0)
    assert trio.current_time() - ended == pytest.approx(100.0, abs=2.0)


async def test_a_host_that_starts_again_does_not_wait_for_itself(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await one.begin()
    await one.restart()
    await until(lambda: one.store.lease.number)
    assert one.grant.record.interrupted is not None
    await one.begin()
    await trio.sleep(2 * LIFE)  # the lease of the earlier process ends
    assert machines.rows("claim")
    with pytest.raises(HeldElsewhere):
        await two.begin()


async def test_nothing_is_sent_once_the_lease_may_have_ended(autojump_clock: MockClock, machines: Fleet) -> None:
    one, _ = await machines.started(2)
    await one.log_in()
    await one.begin()
    one.store.last_look("app", one.place.fingerprint)
    one.cut()
    began = trio.current_time()
    await trio.sleep(LIFE - 9.0)
    one.store.last_look("app", one.place.fingerprint)
    await trio.sleep(LIFE - 3.0 - (trio.current_time() - began))
    with pytest.raises(StoreUnavailable):
        one.store.last_look("app", one.place.fingerprint)
    await until(lambda: not machines.rows("claim"))
    one.heal()
    await until(lambda: one.store.lease.number in machines.cluster.server.leases)
    with pytest.raises(StoreUnavailable):  # it has another lease
        one.store.last_look("app", one.place.fingerprint)


async def test_another_machine_with_the_same_name_joins_only_when_the_first_is_gone(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one = await machines.add("web").start()
    await machines.settled()
    twin = await machines.add("web", machine="other").start()
    await until(lambda: "has the name web" in (twin.store.trouble or ""))
    await one.log_in()
    await machines.level()
    assert twin.served() == one.served()
    with pytest.raises(StoreUnavailable):
        await twin.begin()
    await one.begin()
    await one.kill()
    await until(lambda: twin.store.trouble is None and twin.store.lease.number)
    with pytest.raises(StoreUnavailable, match="answer may still come"):  # the first may live where etcd is not
        await twin.begin()


async def test_two_processes_with_one_name_on_one_machine_do_not_share_a_claim(
    autojump_clock: MockClock, machines: Fleet
) -> None:
    one = await machines.add("web").start()
    await machines.settled()
    twin = await machines.add("web", machine="web").start()
    await one.log_in()
    await machines.level()
    await trio.sleep(LIFE)
    await one.begin()
    await machines.level()
    with pytest.raises(StoreUnavailable):
        await twin.begin()


async def test_a_write_in_between_is_taken_over(autojump_clock: MockClock, machines: Fleet) -> None:
    one, two = await machines.started(2)
    await one.log_in()
    await machines.level()
    one.cut()
    await two.renewed()
    stale = one.grant.record
    one.heal()
    with pytest.raises((ChangedElsewhere, StoreUnavailable)):
        await one.store.write(stale, one.place.fingerprint, stale.generation, concludes=False)
    await until(lambda: one.served() == two.served())
