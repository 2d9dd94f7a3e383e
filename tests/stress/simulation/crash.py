# How a process ends without a word: at a place that the schedule names, or after so many steps of any of its tasks.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Task

if TYPE_CHECKING:
    from tests.stress.simulation.life import Life


class Crashed(BaseException):
    """The process is gone; nothing of it does anything any more. Never caught by brokerd."""


class Steps(trio.abc.Instrument):
    """Ends a life after so many steps of any task: a crash at any await."""

    def __init__(self, life: Life, count: int) -> None:
        self._life, self._left = life, count

    def after_task_step(self, task: Task) -> None:
        self._left -= 1
        if self._left == 0:
            trio.lowlevel.current_trio_token().run_sync_soon(self._strike)

    def _strike(self) -> None:
        if self._life.steps is self:  # it was not called off meanwhile
            self._life.crash()
