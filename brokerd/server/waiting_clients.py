# Waits for all clients at once: one epoll over the sockets of all connections. What a connection can answer without
# waiting is answered here; for everything else its task is woken. The only busy client is waited for directly.
from __future__ import annotations

import select
from dataclasses import dataclass, field
from typing import Protocol

import trio

AT_ONCE = 64  # clients that are answered before other tasks have their turn
TIMES = 16  # that one client must have been the only one that had sent something to be waited for by itself
LOOKS = 4  # for the next request of such a client: it may come sooner than the server would sleep and wake
SLOW = 64  # requests of a client that are not looked for, after one that none of the looks found


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


@dataclass(slots=True, eq=False)
class SoleClient:
    """A client that is waited for by itself, in a task of its own with that scope."""

    descriptor: int = -1
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class WaitingClients:
    """`run` must run. `_waiting` is by descriptor.

    An epoll within trio's own costs a look more, and the kernel does not tell the scheduler that the sender is about to
    wait. So a client that was the only one to send something for some time is waited for by itself, until it needs a
    task, or another client has sent something."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._waiting: dict[int, WaitingTask] = {}
        self._last, self._times = -1, 0  # which client was the only one that had sent something, how often in a row
        self._sole = SoleClient()

    async def run(self) -> None:
        descriptor = self._epoll.fileno()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await trio.lowlevel.wait_readable(descriptor)
                    have_sent = self._answer_some()
                    if self._is_sole(have_sent):
                        nursery.start_soon(self._wait_for_sole, self._sole)
        finally:
            for found in list(self._waiting.values()):
                if found.task is None:
                    found.client.close()
            self._epoll.close()

    def answer_now(self) -> None:
        """Answer what has come, in the midst of something else that takes long."""
        if self._epoll.closed:  # `run` has ended
            return
        if (sole := self._sole.descriptor) >= 0:
            self._answer([sole])
        self._answer_some()

    def _answer_some(self) -> list[int]:
        """Which clients had sent something, at most AT_ONCE; not the one that is waited for by itself."""
        have_sent = [each for each, _ in self._epoll.poll(0, AT_ONCE)]
        if have_sent and (sole := self._sole.descriptor) >= 0:
            self._end_sole(sole)
            self._watch(sole)
        self._answer(have_sent)
        return have_sent

    def _is_sole(self, have_sent: list[int]) -> bool:
        """Whether `_sole` is to be waited for by itself from now on."""
        last = have_sent[0] if len(have_sent) == 1 else -1
        self._last, self._times = last, self._times + 1 if last == self._last else 0
        if last not in self._waiting or self._times < TIMES:
            return False
        self._unwatch(last)
        self._sole, self._times = SoleClient(last), 0
        return True

    async def _wait_for_sole(self, sole: SoleClient) -> None:
        is_slow = 0  # for so many requests more
        with sole.scope:
            while self._sole is sole:
                await trio.lowlevel.wait_readable(sole.descriptor)
                self._answer([sole.descriptor])
                if is_slow:
                    is_slow -= 1
                elif not await self._look_for_more(sole):
                    is_slow = SLOW

    async def _look_for_more(self, sole: SoleClient) -> bool:
        """Answers the client's next requests for as long as each comes within a few looks; all other tasks have their
        turn before each look. False: there was none."""
        has_come, looks = False, LOOKS
        while looks and self._sole is sole:
            await trio.lowlevel.checkpoint()
            if self._answer([sole.descriptor]):
                has_come, looks = True, LOOKS
            else:
                looks -= 1
        return has_come

    def _end_sole(self, descriptor: int) -> None:
        """If that client is waited for by itself, nobody waits for it from now on."""
        if (sole := self._sole).descriptor == descriptor:
            self._sole = SoleClient()
            sole.scope.cancel()

    def _answer(self, descriptors: list[int]) -> bool:
        """Whether anything had come. All of it is read before the first is answered, so one look at a process can serve
        all its requests of a batch."""
        batch = object()
        have_sent: list[tuple[int, WaitingTask]] = []
        for descriptor in descriptors:
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
        return len(have_sent) > 0

    def _wake(self, descriptor: int, error: Exception | None = None) -> None:
        found = self._stop_waiting(descriptor)
        if found.task is None:
            found.client.go_on(error)
        else:
            found.error = error
            trio.lowlevel.reschedule(found.task)

    def _stop_waiting(self, descriptor: int) -> WaitingTask:
        self._end_sole(descriptor)
        return self._waiting.pop(descriptor)

    def rest(self, descriptor: int, client: WaitingClient) -> None:
        """The connection needs no task until `client.go_on` is called."""
        self._watch(descriptor)
        self._waiting[descriptor] = WaitingTask(None, client)

    def _watch(self, descriptor: int) -> None:
        if descriptor not in self._watched:
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched.add(descriptor)

    def _unwatch(self, descriptor: int) -> None:
        if descriptor in self._watched:
            self._watched.discard(descriptor)
            if not self._epoll.closed:
                self._epoll.unregister(descriptor)

    async def wait(self, descriptor: int, client: WaitingClient) -> None:
        """Until the client has sent something, or has gone, and that is for the task."""
        if descriptor not in self._watched:
            await trio.lowlevel.checkpoint_if_cancelled()  # `run` may have ended
            self._watch(descriptor)
        self._waiting[descriptor] = waiting = WaitingTask(trio.lowlevel.current_task(), client)

        def stop(_: object) -> trio.lowlevel.Abort:
            self._stop_waiting(descriptor)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(stop)
        if waiting.error is not None:
            raise waiting.error

    def forget(self, descriptor: int) -> None:
        """Call this before the socket is closed: its number may be another's at once."""
        self._end_sole(descriptor)
        self._unwatch(descriptor)
