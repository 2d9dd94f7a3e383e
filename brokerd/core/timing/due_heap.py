# One heap for all grants: when each is looked at next. Pure: time is an argument, in CLOCK_BOOTTIME seconds.
# It does not know what happens then.
from __future__ import annotations

import heapq
from collections.abc import Iterator


class Schedule:
    """The times at which grants are due. Old entries stay in the heap until they come to its top."""

    __slots__ = ("_heap", "_times")

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, at: float | None) -> None:
        """`name` is due at `at`; None: not at all."""
        if at is None:
            self._times.pop(name, None)
            return
        if self._times.get(name) != at:
            self._times[name] = at
            heapq.heappush(self._heap, (at, name))
            if len(self._heap) > 64 + 4 * len(self._times):
                self._heap = [(when, each) for each, when in self._times.items()]
                heapq.heapify(self._heap)

    def at(self, name: str) -> float | None:
        return self._times.get(name)

    def next(self) -> float | None:
        """When the first grant is due; None: no grant is."""
        while self._heap:
            at, name = self._heap[0]
            if self._times.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> Iterator[str]:
        """Take out every grant that is due, in order."""
        while (at := self.next()) is not None and at <= now:
            _, name = heapq.heappop(self._heap)
            del self._times[name]
            yield name

    def __len__(self) -> int:
        return len(self._times)
