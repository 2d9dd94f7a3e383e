"""What every Etcd does, as functions that take one: tests/real/etcd runs them on real servers, the simulation on its
model. Each uses keys below a prefix of its own, and leaves the rest alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio

from brokerd.core.fleet.etcd import ABSENT, Changes, Compacted, Etcd, LeaseGone, Pair, Put

WITHIN = 30.0  # seconds, for what is waited for
SHORT = 2  # seconds that a lease is asked for; etcd may give more


@dataclass(frozen=True)
class Subject:
    """`one` and `other` are two clients of the same cluster. `compact` forgets all revisions before one."""

    one: Etcd
    other: Etcd
    compact: Callable[[int], Awaitable[None]]
    prefix: bytes

    def key(self, name: str) -> bytes:
        return self.prefix + name.encode()

    async def put(self, name: str, value: bytes, lease: int = 0) -> int:
        """Whatever there is. Returns the revision."""
        done = await self.one.transact({}, {self.key(name): Put(value, lease)})
        assert done.done
        return done.revision


Check = Callable[[Subject], Awaitable[None]]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


async def next_change(changes: AsyncIterator[Changes]) -> Changes:
    """The next that is not only progress."""
    with trio.fail_after(WITHIN):
        async for each in changes:
            if each.changes:
                return each
    raise AssertionError("a watch ended without an error")


@check
async def a_key_is_made_once(subject: Subject) -> None:
    key = subject.key("a")
    first = await subject.one.transact({key: ABSENT}, {key: Put(b"first")})
    second = await subject.other.transact({key: ABSENT}, {key: Put(b"second")})
    assert first.done
    assert not first.found
    assert not second.done
    assert second.found == {key: Pair(key, b"first", first.revision)}
    assert second.cluster == first.cluster


@check
async def what_is_not_as_expected_changes_nothing_and_tells_what_there_is(subject: Subject) -> None:
    a, b, c = map(subject.key, "abc")
    revision = await subject.put("a", b"1")
    later = await subject.put("b", b"2")
    done = await subject.one.transact({a: revision, b: revision, c: ABSENT}, {a: Put(b"no"), b: None, c: Put(b"no")})
    assert not done.done
    assert done.found == {a: Pair(a, b"1", revision), b: Pair(b, b"2", later)}
    assert dict((await subject.other.read([a, b, c])).pairs) == done.found


@check
async def all_keys_of_a_transaction_have_its_revision(subject: Subject) -> None:
    a, b = map(subject.key, "ab")
    before = await subject.put("a", b"1")
    done = await subject.one.transact({a: before, b: ABSENT}, {a: Put(b"2"), b: Put(b"2")})
    assert done.done
    assert done.revision > before
    found = await subject.other.read([a, b])
    assert {each.modified for each in found.pairs.values()} == {done.revision}
    assert found.revision >= done.revision
    assert found.cluster == done.cluster


@check
async def an_absent_key_can_be_deleted(subject: Subject) -> None:
    a, b = map(subject.key, "ab")
    await subject.put("a", b"1")
    assert (await subject.one.transact({}, {a: None, b: None})).done
    assert (await subject.one.transact({a: ABSENT}, {a: None, b: None})).done
    assert not (await subject.one.read([a, b])).pairs


@check
async def a_key_that_was_deleted_can_be_made_again(subject: Subject) -> None:
    key = subject.key("a")
    old = await subject.put("a", b"1")
    await subject.one.transact({}, {key: None})
    assert not (await subject.one.transact({key: old}, {key: Put(b"2")})).done
    assert (await subject.one.transact({key: ABSENT}, {key: Put(b"2")})).done


@check
async def any_bytes_are_kept(subject: Subject) -> None:
    key = subject.prefix + bytes(range(256))
    done = await subject.one.transact({}, {key: Put(bytes(range(256))), subject.key("empty"): Put(b"")})
    found = await subject.other.read([key, subject.key("empty"), subject.key("absent")])
    empty = Pair(subject.key("empty"), b"", done.revision)
    assert dict(found.pairs) == {key: Pair(key, bytes(range(256)), done.revision), empty.key: empty}


@check
async def a_read_sees_what_the_other_has_done(subject: Subject) -> None:
    key = subject.key("a")
    for number in range(30):
        done = await subject.one.transact({}, {key: Put(b"%d" % number)})
        found = await subject.other.read([key])
        assert found.pairs[key] == Pair(key, b"%d" % number, done.revision)


@check
async def many_keys_are_read_at_one_revision(subject: Subject) -> None:
    names = [f"{number:03}" for number in range(300)]
    for name in names[::2]:
        await subject.put(name, name.encode())
    found = await subject.one.read(map(subject.key, names))
    assert {key: pair.value for key, pair in found.pairs.items()} == {
        subject.key(name): name.encode() for name in names[::2]
    }


@check
async def one_of_two_wins_each_time(subject: Subject) -> None:
    key = subject.key("a")
    winners = []

    async def race(etcd: Etcd, name: bytes, expected: int) -> None:
        done = await etcd.transact({key: expected}, {key: Put(name)})
        if done.done:
            winners.append((name, done.revision))
        else:
            assert done.found[key].modified != expected

    revision = ABSENT
    for _ in range(200):
        winners.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race, subject.one, b"one", revision)
            nursery.start_soon(race, subject.other, b"other", revision)
        assert len(winners) == 1
        found = (await subject.one.read([key])).pairs[key]
        assert winners == [(found.value, found.modified)]
        revision = found.modified


@check
async def the_end_of_a_lease_deletes_its_keys_at_once(subject: Subject) -> None:
    lease, seconds = await subject.one.grant_lease(60)
    assert seconds >= 60
    key, kept = map(subject.key, ("leased", "kept"))
    done = await subject.one.transact({}, {key: Put(b"1", lease), kept: Put(b"1")})
    assert (await subject.other.read([key])).pairs == {key: Pair(key, b"1", done.revision, lease)}
    async with subject.other.watch(subject.prefix, done.revision + 1) as changes:
        await subject.one.end_lease(lease)
        assert (await next_change(changes)).changes == ((key, None),)
    assert set((await subject.other.read([key, kept])).pairs) == {kept}
    await subject.one.end_lease(lease)


@check
async def a_lease_that_nobody_keeps_alive_ends(subject: Subject) -> None:
    lease, _ = await subject.one.grant_lease(SHORT)
    key, kept = map(subject.key, ("leased", "kept"))
    done = await subject.one.transact({}, {key: Put(b"1", lease)})
    async with subject.other.watch(subject.prefix, done.revision + 1) as changes:
        change = await next_change(changes)
        assert change.changes == ((key, None),)
        assert change.revision > done.revision
    with pytest.raises(LeaseGone):
        await subject.one.keep_alive(lease)
    with pytest.raises(LeaseGone):
        await subject.one.transact({}, {kept: Put(b"1"), key: Put(b"1", lease)})
    assert not (await subject.one.read([key, kept])).pairs


@check
async def a_lease_that_is_kept_alive_lives(subject: Subject) -> None:
    lease, seconds = await subject.one.grant_lease(SHORT)
    await subject.put("leased", b"1", lease)
    for _ in range(4):
        await trio.sleep(seconds / 2)
        assert SHORT <= await subject.other.keep_alive(lease) <= seconds
    assert subject.key("leased") in (await subject.one.read([subject.key("leased")])).pairs


@check
async def a_key_that_is_written_without_its_lease_outlives_it(subject: Subject) -> None:
    lease, _ = await subject.one.grant_lease(60)
    await subject.put("a", b"1", lease)
    revision = await subject.put("a", b"2")
    await subject.one.end_lease(lease)
    key = subject.key("a")
    assert (await subject.one.read([key])).pairs == {key: Pair(key, b"2", revision)}


@check
async def a_watch_tells_each_revision_once_and_in_order(subject: Subject) -> None:
    a, b = map(subject.key, "ab")
    first = await subject.put("a", b"1")
    both = (await subject.one.transact({}, {a: Put(b"2"), b: Put(b"2")})).revision
    gone = (await subject.one.transact({}, {a: None, b: Put(b"3")})).revision
    async with subject.other.watch(subject.prefix, first) as changes:
        found = [await next_change(changes) for _ in range(3)]
        last = await subject.put("b", b"4")
        found.append(await next_change(changes))
    assert [each.revision for each in found] == [first, both, gone, last]
    assert found[0].changes == ((a, Pair(a, b"1", first)),)
    assert dict(found[1].changes) == {a: Pair(a, b"2", both), b: Pair(b, b"2", both)}
    assert dict(found[2].changes) == {a: None, b: Pair(b, b"3", gone)}
    assert found[3].changes == ((b, Pair(b, b"4", last)),)
    assert len({each.cluster for each in found}) == 1


@check
async def a_watch_begins_where_it_is_told(subject: Subject) -> None:
    await subject.put("a", b"1")
    second = await subject.put("a", b"2")
    async with subject.one.watch(subject.prefix, second) as changes:
        assert (await next_change(changes)).revision == second
    async with subject.one.watch(subject.prefix, second + 1) as changes:
        third = await subject.put("a", b"3")
        assert (await next_change(changes)).revision == third


@check
async def a_watch_tells_only_of_its_prefix(subject: Subject) -> None:
    begin = await subject.put("a/1", b"1")
    await subject.put("a0", b"no")
    await subject.put("a", b"no")
    last = await subject.put("a/\xff", b"2")
    async with subject.other.watch(subject.key("a/"), begin) as changes:
        assert [(await next_change(changes)).revision for _ in range(2)] == [begin, last]


@check
async def a_watch_sees_what_the_other_does_at_once(subject: Subject) -> None:
    since = await subject.put("a", b"0")
    async with subject.other.watch(subject.prefix, since + 1) as changes:
        for number in range(100):
            revision = await subject.put("a", b"%d" % number)
            assert (await next_change(changes)).revision == revision


@check
async def what_was_compacted_cannot_be_watched(subject: Subject) -> None:
    old = await subject.put("a", b"1")
    new = await subject.put("a", b"2")
    await subject.compact(new)
    with pytest.raises(Compacted):
        async with subject.other.watch(subject.prefix, old) as changes:
            await next_change(changes)
    async with subject.other.watch(subject.prefix, new) as changes:
        assert (await next_change(changes)).revision == new
    assert (await subject.other.read_prefix(subject.prefix)).pairs[subject.key("a")].modified == new


@check
async def a_prefix_is_read_at_one_revision_while_others_write(subject: Subject) -> None:
    names = [f"{number:04}" for number in range(2500)]
    for begin in range(0, len(names), 100):
        await subject.one.transact({}, {subject.key(name): Put(b"0") for name in names[begin : begin + 100]})
    await subject.one.transact({}, {subject.prefix[:-1] + b"0": Put(b"not below it")})
    first, last = subject.key(names[0]), subject.key(names[-1])
    read = False

    async def write() -> None:
        number = 0
        while not read:
            number += 1
            await subject.other.transact({}, {first: Put(b"%d" % number), last: Put(b"%d" % number)})

    await subject.one.transact({}, {first: Put(b"0"), last: Put(b"0")})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        revisions: list[int] = []
        while len(set(revisions)) < 3:
            found = await subject.one.read_prefix(subject.prefix)
            revisions.append(found.revision)
            assert set(found.pairs) == set(map(subject.key, names))
            assert found.pairs[first].value == found.pairs[last].value
            assert found.pairs[first].modified == found.pairs[last].modified <= found.revision
            assert revisions == sorted(revisions)
        read = True


@check
async def an_empty_prefix_is_read(subject: Subject) -> None:
    found = await subject.one.read_prefix(subject.prefix)
    assert not found.pairs
    assert found.revision > 0


@check
async def a_record_of_one_mebibyte_is_kept_read_and_watched(subject: Subject) -> None:
    values = [bytes([number]) * (1 << 20) for number in range(6)]
    revisions = [await subject.put(f"{number}", value) for number, value in enumerate(values)]
    assert [pair.value for pair in (await subject.other.read_prefix(subject.prefix)).pairs.values()] == values
    async with subject.other.watch(subject.prefix, revisions[0]) as changes:
        for number, (value, revision) in enumerate(zip(values, revisions, strict=True)):
            change = await next_change(changes)
            key = subject.key(f"{number}")
            assert change.changes == ((key, Pair(key, value, revision)),)
