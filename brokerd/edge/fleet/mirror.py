# What etcd has below the fleet's prefix, kept in step by a watch, and how far this host can trust that. It knows keys
# and revisions; store.py knows what is in them.
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import trio

from brokerd.core.fleet.etcd import Changes, Compacted, Etcd, EtcdError, EtcdRefused, Pair
from brokerd.core.ports import Clock

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between two tries to reach etcd
BEATS = 64  # that are remembered
ALL = 512 << 20  # bytes of all pairs
EACH = 300  # bytes that a pair costs besides
CROWDED = 60.0  # seconds until a look whether there is less


class Beat(NamedTuple):
    """A linearizable request that was sent at that CLOCK_BOOTTIME: etcd was at that revision then, or before."""

    sent: float
    revision: int


class Mirror:
    """`away`: why etcd cannot be reached, None: it can. `reached`: CLOCK_BOOTTIME when it last answered. `changed` is
    called with the keys that are not as they were. If etcd was put back to an older state, `put_back` is called, and
    then everything is read again: it has another cluster id, or a revision that is smaller than one seen. `most`: how
    many bytes a value of a key may have, 0: nobody needs that key. Of a larger value it is known only that it is there.

    Many attributes: each is a fact about the one view of etcd."""

    def __init__(self, etcd: Etcd, root: bytes, clock: Clock) -> None:
        self._etcd = etcd
        self._root = root
        self._clock = clock
        self.pairs: dict[bytes, Pair] = {}
        self.revision = 0
        self.cluster = 0
        self.away: str | None = "it was not reached yet"
        self.reached = float("-inf")
        self.there = trio.Event()  # it was reached once
        self.since: float | None = None  # CLOCK_BOOTTIME since when `away` is so
        self.changed: Callable[[set[bytes]], None] = lambda _: None
        self.moved: Callable[[], None] = lambda: None  # called when `away` has changed
        self.put_back: Callable[[], None] = lambda: None
        self.most: Callable[[bytes], int] = lambda _: ALL
        self._size = 0
        self._is_crowded = False
        self._known_at: dict[bytes, int] = {}  # keys that were read or written beside the watch
        self._watching = trio.CancelScope()
        self._beats: deque[Beat] = deque(maxlen=BEATS)

    async def run(self) -> None:
        """Follows etcd for ever."""
        delay = FIRST_DELAY
        while True:
            began, is_loaded = trio.current_time(), False
            try:
                await self.load()
                is_loaded = True
                with trio.CancelScope() as self._watching:
                    # From the last revision again: of the one that etcd was compacted to, it tells no deletions.
                    async with self._etcd.watch(self._root, self.revision) as stream:
                        async for changes in stream:
                            self._apply(changes)
            except EtcdError as error:
                if isinstance(error, Compacted):
                    self.revision = 0
                if trio.current_time() - began > LONGEST_DELAY:  # it was there for a while
                    delay = FIRST_DELAY
                if isinstance(error, EtcdRefused) or (delay > FIRST_DELAY and not is_loaded):
                    self._is_away(str(error))  # not at the first time: another server may answer at once
                await trio.sleep(CROWDED if self._is_crowded else delay)
                delay = min(2 * delay, LONGEST_DELAY)

    async def load(self) -> None:
        """Read everything, unless the watch can go on where it ended. Raises EtcdError."""
        if self.revision:
            await self.beat()
        if not self.revision:
            sent, least = self._clock.now().boot, self.newest()
            found = await self._etcd.read_prefix(self._root)
            self.heard(sent, least, found.revision, found.cluster)
            before, self.pairs = self.pairs, {}
            self._size = 0
            self._known_at.clear()
            for key, pair in found.pairs.items():
                self._put(key, pair)
            self.revision = found.revision
            names = before.keys() | self.pairs.keys()
            if different := {key for key in names if before.get(key) != self.pairs.get(key)}:
                self.changed(different)
            self._require_room()
        self._is_away(None)

    async def beat(self) -> None:
        """Ask how far etcd is. Raises EtcdError."""
        sent, least = self._clock.now().boot, self.newest()
        found = await self._etcd.read((self._root,))
        self.heard(sent, least, found.revision, found.cluster)
        self._is_away(None)

    def absent_at(self, revision: int) -> float | None:
        """The last known CLOCK_BOOTTIME when etcd had not come to that revision; None: not known."""
        return max((each.sent for each in self._beats if each.revision < revision), default=None)

    def fold(self, found: Mapping[bytes, Pair | None], revision: int) -> None:
        """Of these keys it is known what they were at that revision."""
        different = set()
        if revision <= self.revision:  # the watch was there before: what it saw is newer
            return
        for key, pair in found.items():
            if self._known_at.get(key, 0) >= revision or self._is_newer(key, revision):
                continue
            self._known_at[key] = revision
            if self._put(key, pair):
                different.add(key)
        if different:
            self.changed(different)

    def _is_newer(self, key: bytes, revision: int) -> bool:
        pair = self.pairs.get(key)
        return pair is not None and pair.modified > revision

    def _apply(self, changes: Changes) -> None:
        different = set()
        for key, pair in changes.changes:
            if self._known_at.get(key, 0) < changes.revision and self._put(key, pair):
                different.add(key)
        self.revision = max(self.revision, changes.revision)
        if len(self._known_at) > 2 * BEATS:
            self._known_at = {key: at for key, at in self._known_at.items() if at > self.revision}
        if different:
            self.changed(different)
        self._require_room()

    def _put(self, key: bytes, pair: Pair | None) -> bool:
        before = self.pairs.pop(key, None)
        if before is not None:
            self._size -= EACH + len(key) + len(before.value)
        if pair is None:
            return before is not None
        if not (most := self.most(key)):
            return False
        if len(pair.value) > most:
            pair = replace(pair, value=b"")
        self._size += EACH + len(key) + len(pair.value)
        self.pairs[key] = pair
        return before is None or before.modified != pair.modified

    def _require_room(self) -> None:
        """Raises EtcdRefused."""
        self._is_crowded = self._size > ALL
        if self._is_crowded:
            self.revision = 0
            words = f"there is more than {ALL >> 20} MiB below {self._root.decode()}"
            raise EtcdRefused(f"{words}; delete what brokerd did not write, and see who may write there")

    def newest(self) -> int:
        """The newest revision that was seen."""
        return max(self.revision, *(each.revision for each in self._beats), 0)

    def heard(self, sent: float, least: int, revision: int, cluster: int) -> bool:
        """An answer to what was sent then: etcd was not farther before. `least`: the newest revision that was seen when
        it was sent; what the watch brought since may be newer than the answer. Returns whether etcd was put back:
        nothing that was known holds."""
        is_back = self.cluster not in (0, cluster) or revision < least
        self.cluster = cluster
        if is_back:
            self._beats.clear()
            self.revision = 0
            self.put_back()
            self._watching.cancel()
        self._beats.append(Beat(sent, revision))
        self.reached = sent
        return is_back

    def _is_away(self, why: str | None) -> None:
        if why is None and self._is_crowded:
            return
        before, self.away = self.away, why
        if why is None:
            self.there.set()
        if (before is None) != (why is None):
            self.since = self._clock.now().boot
        if before != why:
            self.moved()
