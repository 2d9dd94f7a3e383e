# A host's view of etcd (edge/fleet/mirror.py).
from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from brokerd.core.fleet.etcd import Changes, Found, Pair
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.mirror import Mirror

CLUSTER = 7


class Clock:
    def now(self) -> Moment:
        return Moment(1_000.0 + trio.current_time(), trio.current_time(), "boot", True)


class SlowEtcd:
    """A read is carried out at once, and answered when `answers` is set. The watch brings what is sent to `watched`."""

    def __init__(self) -> None:
        self.revision = 5
        self.answers = trio.Event()
        self.watched, self._changes = trio.open_memory_channel[Changes](10)
        self.watching = trio.Event()

    async def read_prefix(self, prefix: bytes) -> Found:
        return Found({}, self.revision, CLUSTER)

    async def read(self, keys: Iterable[bytes]) -> Found:
        found = Found({}, self.revision, CLUSTER)
        await self.answers.wait()
        return found

    @asynccontextmanager
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Any]:
        self.watching.set()
        yield self._changes


async def test_an_answer_that_is_older_than_what_the_watch_brought_since_is_no_sign_of_an_older_etcd(
    nursery: trio.Nursery,
) -> None:
    etcd = SlowEtcd()
    mirror = Mirror(etcd, b"/", Clock())  # type: ignore[arg-type]
    nursery.start_soon(mirror.run)
    await etcd.watching.wait()
    nursery.start_soon(mirror.beat)
    await trio.testing.wait_all_tasks_blocked()
    await etcd.watched.send(Changes((), 9, CLUSTER))
    await trio.testing.wait_all_tasks_blocked()
    etcd.answers.set()
    await trio.testing.wait_all_tasks_blocked()
    assert mirror.revision == 9
    nursery.cancel_scope.cancel()


async def test_an_etcd_that_is_older_than_what_was_seen_was_put_back(nursery: trio.Nursery) -> None:
    etcd = SlowEtcd()
    etcd.answers.set()
    mirror = Mirror(etcd, b"/", Clock())  # type: ignore[arg-type]
    nursery.start_soon(mirror.run)
    await etcd.watching.wait()
    etcd.revision = 3
    await mirror.beat()
    assert mirror.revision == 0
    await trio.testing.wait_all_tasks_blocked()
    assert mirror.revision == 3  # everything was read again
    nursery.cancel_scope.cancel()


async def test_what_was_read_late_brings_nothing_back_that_the_watch_saw_deleted(nursery: trio.Nursery) -> None:
    etcd, pair = SlowEtcd(), Pair(b"/a", b"1", 8)
    mirror = Mirror(etcd, b"/", Clock())  # type: ignore[arg-type]
    nursery.start_soon(mirror.run)
    await etcd.watching.wait()
    await etcd.watched.send(Changes(((b"/a", pair),), 8, CLUSTER))
    await etcd.watched.send(Changes(((b"/a", None),), 9, CLUSTER))
    await trio.testing.wait_all_tasks_blocked()
    mirror.fold({b"/a": pair}, 8)
    assert mirror.pairs == {}
    later = Pair(b"/a", b"2", 10)
    mirror.fold({b"/a": later}, 10)
    await etcd.watched.send(Changes(((b"/b", None),), 9, CLUSTER))
    assert mirror.pairs == {b"/a": later}
    nursery.cancel_scope.cancel()
