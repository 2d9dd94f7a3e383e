# Waits for all clients at once: one epoll over the sockets of all connections. What a connection can answer without
# waiting is answered here; for everything else its task is woken.
from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass

import trio

AT_ONCE = 64  # clients that are looked at before other tasks have their turn

Answer = Callable[[], bool]


@dataclass(slots=True, eq=False)
class WaitingTask:
    """A task that waits, what is called before it is woken, and what that raised."""

    task: trio.lowlevel.Task
    answer: Answer
    error: Exception | None = None


class WaitingClients:
    """`run` must run. `_waiting` is by descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._waiting: dict[int, WaitingTask] = {}

    async def run(self) -> None:
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll)
                self._look()

    def _look(self) -> None:
        waiting = self._waiting
        for descriptor, _ in self._epoll.poll(0, AT_ONCE):
            if (found := waiting.get(descriptor)) is None:
                self.forget(descriptor)  # its task is busy, and says when it waits again
                continue
            try:
                if found.answer():
                    continue
            except Exception as error:
                found.error = error
            del waiting[descriptor]
            trio.lowlevel.reschedule(found.task)

    async def wait(self, descriptor: int, answer: Answer) -> None:
        """Until the client has sent something, or has gone, and `answer` has said that it is for the task. `answer`
        must not block. Raises what it raises."""
        if descriptor not in self._watched:
            await trio.lowlevel.checkpoint_if_cancelled()  # `run` may have ended
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched.add(descriptor)
        self._waiting[descriptor] = waiting = WaitingTask(trio.lowlevel.current_task(), answer)

        def stop(_: object) -> trio.lowlevel.Abort:
            del self._waiting[descriptor]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(stop)
        if waiting.error is not None:
            raise waiting.error

    def forget(self, descriptor: int) -> None:
        """Call this before the socket is closed: its number may be another's at once."""
        if descriptor in self._watched:
            self._watched.discard(descriptor)
            if not self._epoll.closed:
                self._epoll.unregister(descriptor)
