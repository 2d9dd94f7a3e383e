# Whoever can read or write the fleet's keys in etcd, without the key: docs/threat-model.md has what must not happen.
from __future__ import annotations

from base64 import b64encode

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.grant.state import State
from brokerd.core.ports import StoreError, StoreUnavailable
from brokerd.edge.fleet import mirror
from tests.scenario.fleet.attacker import FORGED, KEYS, VALUES, Attacker, forged
from tests.scenario.fleet.machines import Fleet, Host, until
from tests.scenario.laws.world import LIFETIME, REFRESHING

OTHER = REFRESHING + REFRESHING[REFRESHING.index("[grants.app]") :].replace("app", "other")


@pytest.fixture
def attacker(machines: Fleet) -> Attacker:
    return Attacker(machines)


async def serving(machines: Fleet, number: int = 2) -> tuple[list[Host], str]:
    """Hosts that serve a token that was renewed once."""
    hosts = await machines.started(number)
    await hosts[0].log_in()
    await trio.sleep(LIFETIME / 2)
    token = await hosts[0].renewed()
    await until(lambda: all(each.served() == token for each in hosts))
    return hosts, token


def is_unharmed(machines: Fleet) -> bool:
    """No refresh token was sent twice."""
    return machines.provider.reused == 0


async def test_a_reader_finds_no_secret_and_learns_names_only_from_keys(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, _), token = await serving(machines)
    await one.begin()  # so there is a row of each kind
    seen = b"".join(pair.value for pair in attacker.pairs.values())
    secrets = [token.encode(), *(each.encode() for each in machines.provider.valid), b"test-only"]
    for secret in secrets:
        assert secret not in seen
        assert b64encode(secret)[:-2] not in seen
    hidden = b"".join(pair.value for key, pair in attacker.pairs.items() if key != KEYS.meta)
    assert b"web-" not in hidden


@pytest.mark.parametrize("kind", FORGED)
async def test_what_nobody_with_the_key_wrote_is_nothing(
    autojump_clock: MockClock, kind: str, machines: Fleet, attacker: Attacker
) -> None:
    hosts, token = await serving(machines)
    asked, key = len(machines.provider.asked), attacker.key(kind, hosts[0].place)
    good = attacker.pairs.get(key)
    for name, value in VALUES.items():
        attacker.put(key, value(kind))
        await machines.level()
        await trio.sleep(LIFETIME / 4 / len(VALUES))
        assert all(each.served() == token for each in hosts), name
        for host in hosts:
            said = repr((host.store.trouble, host.store.etcd_state(), host.store.numbers(), await host.store.fleet()))
            assert "hunter2" not in said, name
            assert "\x1b" not in said, name
    attacker.write({key: None if good is None or kind in ("journal", "claim") else good.value})
    await until(lambda: all(each.served() not in (token, None) for each in hosts))
    assert len(machines.provider.asked) <= asked + 2
    assert is_unharmed(machines)


@pytest.mark.parametrize("kind", ["journal", "claim", "breaker", "member"])
async def test_forged_claims_rows_breakers_and_members_stop_nothing(
    autojump_clock: MockClock, kind: str, machines: Fleet, attacker: Attacker
) -> None:
    hosts, token = await serving(machines)
    attacker.put(attacker.key(kind, hosts[0].place), forged(kind))
    await machines.level()
    await trio.sleep(LIFETIME / 2)
    assert await hosts[1].renewed() != token
    assert hosts[0].store.trouble is None


async def test_a_host_starts_and_serves_whatever_lies_in_etcd(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), token = await serving(machines)
    await trio.sleep(90)  # until the hosts have noted how far the fleet is
    for kind in ("meta", "key"):
        good = attacker.of(kind)
        for value in VALUES.values():
            attacker.put(attacker.key(kind, one.place), value(kind))
            attacker.put(KEYS.data_key(9), value(kind))
            await one.restart()
            assert one.served() == token
        attacker.delete([KEYS.data_key(9), *good])
        await one.restart()
        assert one.served() == token
        attacker.write({**good})
    new = machines.add()
    attacker.put(KEYS.meta, forged("meta"))
    with pytest.raises((StoreError, ExceptionGroup)):
        await new.start()
    assert is_unharmed(machines)
    assert two.served() == token


async def test_a_record_that_was_moved_is_not_opened(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    one, two = await machines.add(text=OTHER).start(), await machines.add(text=OTHER).start()
    await machines.settled()
    token = await one.log_in()
    other = one.broker.grants["other"]
    await machines.level()
    sealed = attacker.pairs[KEYS.record(one.place)].value
    for place in (one.place._replace(grant="other", fingerprint=other.fingerprint), one.place._replace(grant="other")):
        attacker.put(KEYS.record(place), sealed)
        attacker.put(KEYS.journal(place), sealed)
    await machines.level()
    for host in (one, two):
        with pytest.raises(Failure):
            await host.broker.get("other")
    await two.restart()
    with pytest.raises(Failure):
        await two.broker.get("other")
    assert two.served() == token
    assert len(machines.provider.asked) == 1


async def test_an_older_record_is_neither_served_nor_sent(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    hosts = await machines.started(2)
    await hosts[0].log_in()
    old = attacker.of("record")
    await trio.sleep(LIFETIME / 2)
    token = await hosts[0].renewed()
    await until(lambda: hosts[1].served() == token)
    for _ in range(5):
        attacker.write({**old})
        await machines.level()
        assert all(each.served() == token for each in hosts)
        await hosts[1].restart()
        assert hosts[1].served() == token
    await trio.sleep(LIFETIME)
    assert all(each.served() is not None for each in hosts)
    assert is_unharmed(machines)


async def test_an_older_record_of_the_same_tokens_hides_no_interruption(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), _ = await serving(machines)
    old = attacker.of("record")
    machines.provider.lost = 1
    await trio.sleep(LIFETIME / 2)
    with pytest.raises(Failure):
        await one.renewed()
    await machines.level()
    assert two.grant.record.interrupted is not None
    asked = len(machines.provider.asked)
    attacker.write({**old})
    await machines.level()
    with pytest.raises(Failure):
        await two.renewed()
    await two.restart()
    with pytest.raises(Failure):
        await two.renewed()
    assert len(machines.provider.asked) == asked


@pytest.mark.parametrize("then", ["put-back", "void", "another-generation", "record-too"])
async def test_an_exchange_whose_rows_were_deleted_is_not_begun_by_another(
    autojump_clock: MockClock, then: str, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), token = await serving(machines)
    record = attacker.of("record")
    void = None
    if then == "void":
        await one.begin()
        await one.store.end("app", one.place.fingerprint, unstored=False)
        void = attacker.of("journal")
    await trio.sleep(LIFETIME / 2)
    machines.provider.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.renewed)
        await until(lambda: len(machines.provider.asked) == 3)
        await machines.level()
        rows = attacker.of("claim", "journal")
        assert len(rows) == 2
        attacker.delete(rows)
        if then == "another-generation":
            attacker.put(KEYS.journal(one.place), forged("journal", generation=999))
        elif then == "record-too":
            attacker.write({**dict.fromkeys(rows), **record})
        elif void:
            attacker.write({**void})
        await machines.level()
        with pytest.raises(Failure):
            await two.renewed()
        await trio.sleep(30)
        assert len(machines.provider.asked) == 3
        machines.provider.gate.set()
    await until(lambda: one.served() == two.served() != token)
    await one.restart()
    assert one.served() == two.served()
    assert is_unharmed(machines)


async def test_what_was_deleted_is_served_and_put_back(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    hosts, token = await serving(machines)
    attacker.delete(attacker.pairs)
    await until(lambda: not any(each.store.adopted for each in hosts))
    assert all(each.served() == token for each in hosts)
    with pytest.raises(Failure):  # law 15
        await hosts[0].renewed()
    await hosts[0].restart()
    assert hosts[0].served() == token
    await hosts[1].broker.adopt()
    await until(lambda: all(each.store.adopted for each in hosts))
    await trio.sleep(LIFETIME / 2)
    await hosts[1].renewed()
    await until(lambda: all(each.served() not in (token, None) for each in hosts))
    assert is_unharmed(machines)


async def test_a_host_that_was_off_sends_nothing_when_the_record_is_gone(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), _ = await serving(machines)
    await trio.sleep(90)
    await two.stop()
    await trio.sleep(LIFETIME / 2)
    await one.renewed()
    await one.stop()
    attacker.delete(attacker.of("record"))
    asked = len(machines.provider.asked)
    await two.start()
    await trio.sleep(LIFETIME)
    with pytest.raises(Failure):
        await two.broker.get("app")
    assert len(machines.provider.asked) == asked
    await one.start()
    await one.broker.adopt()  # an operator knows that it has the newest
    await until(lambda: one.served() is not None and one.served() == two.served())
    assert is_unharmed(machines)


@pytest.mark.parametrize("also", ["", "forget"])
async def test_a_revoked_grant_stays_revoked(
    autojump_clock: MockClock, also: str, machines: Fleet, attacker: Attacker
) -> None:
    hosts, _ = await serving(machines)
    old = attacker.of("record")
    await hosts[0].broker.revoke("app")
    await until(lambda: hosts[1].grant.record.state is State.REVOKED)
    if also:
        attacker.delete(old)
        await machines.level()
    for _ in range(3):
        attacker.write({**old})
        await machines.level()
        assert all(each.served() is None for each in hosts)
        await hosts[1].restart()
        assert hosts[1].grant.record.state is State.REVOKED
    await trio.sleep(60)
    assert all(each.grant.record.state is State.REVOKED for each in hosts)


async def test_an_older_etcd_is_not_adopted_by_whoever_put_it_back(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    hosts = await machines.started(2)
    await hosts[0].log_in()
    snapshot = machines.cluster.server.copy(trio.current_time)
    await trio.sleep(LIFETIME / 2)
    token = await hosts[0].renewed()
    await until(lambda: hosts[1].served() == token)
    machines.cluster.restore(snapshot, new_cluster=False)
    attacker.put(KEYS.meta, forged("meta"))
    await trio.sleep(30)
    assert not any(each.store.adopted for each in hosts)
    assert all(each.served() == token for each in hosts)
    with pytest.raises(Failure):
        await hosts[0].renewed()
    assert is_unharmed(machines)


async def test_an_adopted_fleet_is_not_led_back_by_an_older_meta(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    hosts, _ = await serving(machines)
    old = attacker.of("meta")
    machines.cluster.restore(machines.cluster.server.copy(trio.current_time), new_cluster=True)
    await until(lambda: not any(each.store.adopted for each in hosts))
    await hosts[0].store.adopt()
    await until(lambda: all(each.store.adopted for each in hosts))
    attacker.write({**old})
    await until(lambda: not any(each.store.adopted for each in hosts))


async def test_keys_that_no_host_writes_are_not_kept(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    hosts, token = await serving(machines)
    strange = [
        b"",
        b"x",
        b"record/app",
        b"record/%61pp/" + hosts[0].place.fingerprint.encode(),
        b"member/",
        b"\xff\xfe",
    ]
    strange += [b"key/" + b"9" * 6_000, b"key/1/2", b"claim/a/b/c", b"record/a%2fb/%zz", b"member/a\0", b"meta/x"]
    for each in strange:
        attacker.put(KEYS.root + each, b"x" * 1_000)
    for number in range(500):
        attacker.put(KEYS.root + b"other/%d" % number, b"x")
    await machines.level()
    await hosts[1].restart()
    await until(lambda: hosts[1].served() == token)
    for host in hosts:
        assert len(host.store.shared.mirror.pairs) < 10
    await trio.sleep(LIFETIME / 2)
    assert await hosts[1].renewed() != token


async def test_more_than_a_host_can_hold_is_not_held(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, token = await serving(machines)
    monkeypatch.setattr(mirror, "ALL", 1 << 20)
    flood = [KEYS.claim(hosts[0].place._replace(grant=f"g{number}")) for number in range(1_000)]
    for key in flood:
        attacker.put(key, bytes(1_000))
    await until(lambda: all("more than 1 MiB" in (each.store.trouble or "") for each in hosts))
    assert all(each.served() == token for each in hosts)
    asked = machines.cluster.server.revision
    await trio.sleep(200)
    assert machines.cluster.server.revision - asked < 50
    attacker.delete(flood)
    await until(lambda: all(each.store.trouble is None for each in hosts))
    assert is_unharmed(machines)


@pytest.mark.parametrize("value", ["forged", "sealed", "sealed-under-another-key"])
async def test_a_spoilt_record_makes_no_host_hammer_etcd_or_the_provider(
    autojump_clock: MockClock, value: str, machines: Fleet, attacker: Attacker
) -> None:
    hosts, _ = await serving(machines)
    requests, asked = list[str](), len(machines.provider.asked)
    machines.cluster.carried_out = lambda *_: requests.append("")
    attacker.put(KEYS.record(hosts[0].place), VALUES[value]("record"))
    await trio.sleep(2 * LIFETIME)
    assert len(machines.provider.asked) == asked
    assert len(requests) < 2 * 2 * LIFETIME  # each host renews its lease and looks, every 5 s
    assert hosts[0].served() is None
    with pytest.raises(Failure, match="see who may write to etcd"):
        await hosts[0].broker.get("app")


async def test_a_record_that_changes_all_the_time_is_served_and_kept_here(
    machines: Fleet, attacker: Attacker, autojump_clock: MockClock
) -> None:
    (one, _), token = await serving(machines)
    key = KEYS.record(one.place)
    await trio.sleep(LIFETIME / 2)

    def again(*_: object) -> None:
        if pair := machines.cluster.server.pairs.get(key):
            attacker.put(key, pair.value)

    machines.provider.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.renewed)
        await until(lambda: len(machines.provider.asked) == 3)
        machines.cluster.carried_out = again
        machines.provider.gate.set()
    renewed = one.served()
    assert renewed not in (token, None)
    await one.restart()
    machines.cluster.carried_out = lambda *_: None
    await until(lambda: one.served() == renewed)
    assert is_unharmed(machines)


async def test_a_value_that_is_put_back_later_makes_no_token_younger(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), token = await serving(machines)
    first = attacker.of("record", "member")
    one.cut()
    await trio.sleep(LIFETIME * 0.9)
    attacker.write({**first})
    await machines.level()
    await trio.sleep(LIFETIME * 0.11)
    assert two.served() != token


async def test_a_host_of_another_key_does_not_take_what_it_cannot_read(
    autojump_clock: MockClock, machines: Fleet, attacker: Attacker
) -> None:
    (one, two), _ = await serving(machines)
    attacker.put(KEYS.claim(one.place), VALUES["sealed-under-another-key"]("claim"))
    await machines.level()
    with pytest.raises(StoreUnavailable, match="data key that this host cannot open"):
        await two.begin()
