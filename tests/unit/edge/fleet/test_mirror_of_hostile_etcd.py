# What the mirror asks of an etcd that never does what it should (edge/fleet/mirror.py).
from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.fleet.etcd import Changes, Compacted, EtcdAway, EtcdError, EtcdRefused, Found
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.mirror import Mirror


class Clock:
    def now(self) -> Moment:
        return Moment(trio.current_time(), trio.current_time(), "boot")


class Etcd:
    """Its watches end at once."""

    def __init__(self, ends: EtcdError) -> None:
        self.ends = ends
        self.asked = 0

    async def read(self, keys: Iterable[bytes]) -> Found:
        self.asked += 1
        return Found({}, 1, 1)

    async def read_prefix(self, prefix: bytes) -> Found:
        return await self.read([prefix])

    @asynccontextmanager
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[AsyncIterator[Changes]]:
        self.asked += 1
        raise self.ends
        yield


@pytest.mark.parametrize("ends", [EtcdAway("gone"), Compacted("compacted"), EtcdRefused("no permission")])
async def test_a_watch_that_ends_at_once_is_opened_again_ever_more_slowly(
    autojump_clock: MockClock, ends: EtcdError
) -> None:
    etcd: Any = Etcd(ends)
    mirror = Mirror(etcd, b"/brokerd/prod/", Clock())
    with trio.move_on_after(1_000):
        await mirror.run()
    assert etcd.asked < 500
