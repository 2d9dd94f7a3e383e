# Waits for all clients at once: one epoll over the sockets of all connections. What a connection can answer without
# waiting is answered here; for everything else its task is woken.
from __future__ import annotations

import select
from dataclasses import dataclass
from typing import Protocol

import trio

AT_ONCE = 64  # clients that are answered before other tasks have their turn


class WaitingClient(Protocol):
    """A connection. Neither method blocks; what they raise is raised by `wait`."""

    def read_at_once(self) -> bool:
        """The client has sent something, or has gone. False: there is nothing after all."""

    def answer_at_once(self, batch: object) -> bool:
        """False: that is for a task."""

    def go_on(self, error: Exception | None) -> None:
        """The connection rests, and now it needs a task, or has ended. `error`: what was raised."""

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class WaitingTask:
    """A task that waits for its client, and why it cannot go on; None: the connection rests, without a task."""

    task: trio.lowlevel.Task | None
    client: WaitingClient
    error: Exception | None = None


class WaitingClients:
    """`run` must run. `_waiting` is by descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._waiting: dict[int, WaitingTask] = {}

    async def run(self) -> None:
        descriptor = self._epoll.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                self._look()
        finally:
            for found in list(self._waiting.values()):
                if found.task is None:
                    found.client.close()
            self._epoll.close()

    def _look(self) -> None:
        """All that has come is read before the first is answered, so one look at a process can serve all its requests
        of a batch."""
        batch = object()
        have_sent: list[tuple[int, WaitingTask]] = []
        for descriptor, _ in self._epoll.poll(0, AT_ONCE):
            if (found := self._waiting.get(descriptor)) is None:
                self.forget(descriptor)  # its task is busy, and says when it waits again
                continue
            try:
                if found.client.read_at_once():
                    have_sent.append((descriptor, found))
            except Exception as error:
                self._wake(descriptor, error)
        for descriptor, found in have_sent:
            try:
                if not found.client.answer_at_once(batch):
                    self._wake(descriptor)
            except Exception as error:
                self._wake(descriptor, error)

    def _wake(self, descriptor: int, error: Exception | None = None) -> None:
        found = self._waiting.pop(descriptor)
        if found.task is None:
            found.client.go_on(error)
        else:
            found.error = error
            trio.lowlevel.reschedule(found.task)

    def rest(self, descriptor: int, client: WaitingClient) -> None:
        """The connection needs no task until `client.go_on` is called."""
        self._watch(descriptor)
        self._waiting[descriptor] = WaitingTask(None, client)

    def _watch(self, descriptor: int) -> None:
        if descriptor not in self._watched:
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched.add(descriptor)

    async def wait(self, descriptor: int, client: WaitingClient) -> None:
        """Until the client has sent something, or has gone, and that is for the task."""
        if descriptor not in self._watched:
            await trio.lowlevel.checkpoint_if_cancelled()  # `run` may have ended
            self._watch(descriptor)
        self._waiting[descriptor] = waiting = WaitingTask(trio.lowlevel.current_task(), client)

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
