# Who may begin an exchange of a grant (edge/fleet/claims.py).
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from brokerd.core.fleet.etcd import Pair, Put, Transacted
from brokerd.core.fleet.layout import FleetKeys, JournalValue, RecordPlace
from brokerd.core.ports import Awaits, StoreUnavailable
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.claims import Claims
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Self, Shared

KEYS, PLACE = FleetKeys("prod"), RecordPlace("app", "f")
ME = Self(fleet="prod", host="here", machine="m", instance="i", release="r", difference=120.0)
NOW = Moment(1_000_000.0, 500.0, "ours", True)
CLOCK: Any = SimpleNamespace(now=lambda: NOW)
LEASE: Any = SimpleNamespace(number=7, is_safe=lambda _: True)
ENTROPY: Any = SimpleNamespace(bytes=bytes)


class Etcd:
    """Everything is as expected."""

    async def transact(self, expected: dict[bytes, int], changes: dict[bytes, Put | None]) -> Transacted:
        return Transacted(True, 20, 1, {})


def claims() -> Claims:
    """Another host began an exchange with the token of generation 3, and its claim is gone."""
    etcd: Any = Etcd()
    mirror = Mirror(etcd, KEYS.root, CLOCK)
    mirror.away = None
    row = JournalValue(host="there", written=NOW, machine="n", generation=3, instance="j", answer_within=90.0)
    key = KEYS.journal(PLACE)
    shared = Shared(etcd, KEYS, mirror, CLOCK, ENTROPY, ME)
    shared.data_keys.use("store", {1: b"k" * 32})
    mirror.pairs[key] = Pair(key, shared.put(key, row).value, 10)
    made = Claims(shared, LEASE)
    made.note({key})
    return made


async def test_a_token_that_another_host_may_have_sent_waits_until_no_answer_can_come() -> None:
    with pytest.raises(StoreUnavailable, match=r"there began an exchange .* for 90 s"):
        await claims().begin(PLACE, 9, NOW, 3, Awaits(90.0))


async def test_a_token_that_came_since_waits_for_no_answer_to_the_one_before() -> None:
    """Somebody logged in again."""
    made = claims()
    await made.begin(PLACE, 12, NOW, 4, Awaits(90.0))
    assert made.fence(PLACE) is not None
