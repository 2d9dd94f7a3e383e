# Where everything of a fleet lies in etcd, and in which form (core/fleet/layout.py).
from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.fleet.layout import (
    BreakerValue,
    ClaimValue,
    FleetKeys,
    JournalValue,
    MemberValue,
    MetaValue,
    RecordPlace,
    RecordValue,
    Value,
)
from brokerd.core.timing.moment import Moment

KEYS = FleetKeys("prod")
NOW = Moment(1_800_000_000.0, 5_000.0, "boot-1")
ABOUT: dict[str, Any] = {"host": "web-1", "machine": "m", "written": NOW}
VALUES: list[Value] = [
    RecordValue(**ABOUT, generation=7, sealed=b"\x00\xff", history=b"h", write=b"w"),
    JournalValue(**ABOUT, generation=7, instance="i", answer_within=180.0, write=b"w"),
    ClaimValue(**ABOUT, instance="i", write=b"w"),
    MemberValue(**ABOUT, release="1.0", schema=1, instance="i"),
    BreakerValue(**ABOUT, failures=5, shut_until=NOW.after(60)),
    BreakerValue(**ABOUT, failures=0, shut_until=None),
    MetaValue(**ABOUT, schema=1, usable_by=1, release="1.0", store="s", cluster=2**64 - 1, epoch=3),
]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(names, names)
def test_every_key_says_what_it_is_of(grant: str, other: str) -> None:
    place = RecordPlace(grant, other)
    for make, kind in ((KEYS.record, "record"), (KEYS.journal, "journal"), (KEYS.claim, "claim")):
        key = make(place)
        assert key.startswith(KEYS.root)
        assert KEYS.place(key) == place
        assert KEYS.kind(key) == (kind, (grant, other))
    for each, kind in ((KEYS.breaker(grant), "breaker"), (KEYS.member(grant), "member")):
        assert KEYS.kind(each) == (kind, (grant,))
        assert KEYS.place(each) is None
    assert KEYS.record(place).startswith(KEYS.records(grant))


@given(names, names, names)
def test_the_keys_of_a_grant_begin_as_no_other_grants_do(grant: str, other: str, fingerprint: str) -> None:
    if grant != other:
        assert not KEYS.record(RecordPlace(other, fingerprint)).startswith(KEYS.records(grant))


def test_the_keys_of_a_fleet_begin_as_no_other_fleets_do() -> None:
    assert not FleetKeys("prod-2").meta.startswith(KEYS.root)
    assert KEYS.kind(KEYS.meta) == ("meta", ())
    assert KEYS.kind(KEYS.data_key(12)) == ("key", ("12",))


@pytest.mark.parametrize(
    "rest", [b"key/x", b"key/", b"key/1/2", b"key/%s" % (b"9" * 5_000), "key/\u0663".encode(), b"k/1"]
)
def test_what_is_no_data_key_has_no_number(rest: bytes) -> None:
    assert KEYS.number(KEYS.root + rest) is None
    assert KEYS.number(KEYS.data_key(12)) == 12


@given(st.binary(max_size=40))
def test_a_key_of_somebody_else_is_of_no_record_or_of_one(rest: bytes) -> None:
    key = KEYS.root + rest
    place = KEYS.place(key)
    assert place is None or len(place) == 2


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Value) -> None:
    assert type(value).decoded(value.encoded()) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_fields_of_a_later_release_are_ignored(value: Value) -> None:
    fields = msgspec.msgpack.decode(value.encoded())
    later = msgspec.msgpack.encode({**fields, "later": {"deep": [1, {"x": b"y"}]}, "more": "text"})
    assert type(value).decoded(later) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_field_that_is_missing_or_of_another_kind_makes_it_unreadable(value: Value) -> None:
    fields = msgspec.msgpack.decode(value.encoded())
    for name in ("host", "written"):
        assert type(value).decoded(msgspec.msgpack.encode({key: fields[key] for key in fields if key != name})) is None
        assert type(value).decoded(msgspec.msgpack.encode({**fields, name: 7})) is None


@pytest.mark.parametrize("kind", sorted({type(value) for value in VALUES}, key=str), ids=lambda kind: kind.__name__)
@given(data=st.binary(max_size=60))
def test_anything_else_is_no_value(kind: type[Value], data: bytes) -> None:
    assert kind.decoded(data) is None


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_cut_off_or_very_deep_is_no_value(value: Value) -> None:
    whole = value.encoded()
    assert all(type(value).decoded(whole[:length]) is None for length in range(len(whole)))
    deep = b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"
    assert type(value).decoded(deep) is None
