# A host that is stopped as by SIGSTOP: none of its tasks takes a step, while time, its deadlines and everybody else go
# on; afterwards they all go on at once. Which host a task is of, its context says.
from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar

from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.lowlevel import Task

HOST: ContextVar[str] = ContextVar("HOST")


class RunQueue(deque[Task]):
    """trio's queue of tasks that can run, without those of hosts that are stopped."""

    def __init__(self, tasks: deque[Task], stopped: set[str]) -> None:
        super().__init__(tasks)
        self._stopped = stopped

    def __iter__(self) -> Iterator[Task]:
        if not self._stopped:
            return super().__iter__()
        return (task for task in super().__iter__() if task.context.get(HOST) not in self._stopped)

    def __bool__(self) -> bool:
        return any(True for _ in self) if self._stopped else len(self) > 0

    def clear(self) -> None:
        if not self._stopped:
            super().clear()
            return
        left = [task for task in super().__iter__() if task.context.get(HOST) in self._stopped]
        super().clear()
        self.extend(left)


class Pauses:
    """`stopped`: the hosts that are."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()

    def install(self) -> None:
        """In the run of trio that this is called in."""
        runner = GLOBAL_RUN_CONTEXT.runner
        runner.runq = RunQueue(runner.runq, self.stopped)

    def stop(self, host: str) -> None:
        self.stopped.add(host)

    def go_on(self, host: str) -> None:
        self.stopped.discard(host)
