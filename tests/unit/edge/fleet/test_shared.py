# Values of other hosts in this one's terms (edge/fleet/shared.py).
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from brokerd.core.fleet.etcd import Pair
from brokerd.core.fleet.layout import FleetKeys, RecordPlace, RecordValue
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.data_keys import FleetDataKeys
from brokerd.edge.fleet.shared import Self, Shared
from brokerd.edge.system.entropy import SystemEntropy

AHEAD = 500.0  # seconds by which our CLOCK_BOOTTIME is ahead of that of the other host
KEYS = FleetKeys("prod")
DATA_KEYS = FleetDataKeys(KEYS, SystemEntropy())
DATA_KEYS.use("store", {1: b"k" * 32})
ME = Self(fleet="prod", host="here", machine="m", instance="i", release="r", difference=120.0)


class Clock:
    boot = 1_000.0

    def now(self) -> Moment:
        return Moment(1_000_000.0 + self.boot - AHEAD, self.boot, "ours", True)


class Mirror:
    """What etcd has, and when it had surely not come to a revision yet."""

    def __init__(self) -> None:
        self.pairs: dict[bytes, Pair] = {}
        self.absent: dict[int, float] = {}

    def absent_at(self, revision: int) -> float | None:
        return self.absent.get(revision)


def written(grant: str, boot: float, revision: int, after: int = 0) -> tuple[bytes, Pair]:
    moment = Moment(1_000_000.0 + boot, boot, "theirs", True)
    key = KEYS.record(RecordPlace(grant, "f"))
    value = RecordValue(host="there", written=moment, after=after, generation=1, sealed=b"", number=1)
    return key, Pair(key, DATA_KEYS.seal_value(key, value), revision)


def test_what_was_dated_badly_at_the_start_is_dated_again_once_the_clocks_are_known() -> None:
    mirror, clock, nothing = Mirror(), Clock(), SimpleNamespace()
    shared = Shared(nothing, KEYS, mirror, clock, nothing, ME)  # type: ignore[arg-type]
    shared.data_keys = DATA_KEYS
    old, pair = written("old", 480.0, 5)  # 20 s ago
    mirror.pairs[old] = pair
    shared.note({old})
    assert dated(shared, old) == pytest.approx(480.0 + AHEAD - ME.difference)
    clock.boot = 1_010.0
    new, mirror.pairs[new] = written("new", 509.9, 9, after=8)
    mirror.absent[8] = 1_009.8
    shared.note({new})
    assert set(shared.to_date_again()) == {old, new}
    assert dated(shared, old) == pytest.approx(480.0 + AHEAD, abs=0.2)
    assert shared.to_date_again() == []


def test_a_value_that_etcd_got_late_was_made_before() -> None:
    """Its host made it, and etcd had no leader for a while."""
    mirror, clock, nothing = Mirror(), Clock(), SimpleNamespace()
    shared = Shared(nothing, KEYS, mirror, clock, nothing, ME)  # type: ignore[arg-type]
    shared.data_keys = DATA_KEYS
    key, mirror.pairs[key] = written("app", 494.0, 9, after=5)  # 6 s ago
    mirror.absent |= {9: 999.9, 5: 990.0}
    shared.note({key})
    assert dated(shared, key) == 990.0


def test_a_value_that_came_to_an_etcd_that_was_put_back_meanwhile_is_not_younger_for_that() -> None:
    mirror, clock, nothing = Mirror(), Clock(), SimpleNamespace()
    shared = Shared(nothing, KEYS, mirror, clock, nothing, ME)  # type: ignore[arg-type]
    shared.data_keys = DATA_KEYS
    late, mirror.pairs[late] = written("late", 470.0, 9, after=12)  # its writer had seen more than there is now
    mirror.absent[12] = 999.0
    shared.note({late})
    assert dated(shared, late) <= 470.0 + AHEAD


def dated(shared: Any, key: bytes) -> float:
    value = shared.value(key, RecordValue)
    moment: Moment = shared.in_our_terms(key, value, value.written)
    return moment.boot
