# How many calls of one kind are in threads at the same time, so that what hangs takes no thread from anything else
# (law 13).
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


class ThreadLimit:
    """Each run of trio has its own: a call that a run abandoned at its end would never give its place back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_run: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("limiter")

    @property
    def is_used(self) -> bool:
        return self._limiter.borrowed_tokens > 0

    async def run(self, work: Callable[[], T], *, abandon: bool = True) -> T:
        """What `work` returns in a thread. If this is cancelled, it does not wait for the thread, which goes on and
        keeps its place until its end; with `abandon=False` it waits."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=abandon)

    @property
    def _limiter(self) -> trio.CapacityLimiter:
        try:
            return self._of_run.get()
        except LookupError:
            self._of_run.set(made := trio.CapacityLimiter(self._most))
            return made
