# How the users of one brokerd-proxy share its one thread. Whoever wants to begin a request, or to pass on a piece of a
# body, takes a turn. As long as few want one, nobody waits. Otherwise users have their turns one after the other, so a
# user with thousands of connections delays another one no longer than a user with one.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import trio

MOST = 16  # turns in one round of the event loop; one takes 0.1 to 0.3 ms
HANDSHAKE = 4  # turns that a new connection to an upstream counts as

Waiting = OrderedDict[object, Callable[[], None]]  # what is called when a turn has come, the first first


class Turns:
    def __init__(self) -> None:
        self._left = MOST
        self._line: OrderedDict[int, Waiting] = OrderedDict()  # users, the next one first
        self._is_dealing = False

    def now(self) -> bool:
        """Whether a turn is had without waiting."""
        if self._line or not self._left:
            return False
        self._left -= 1
        if not self._left:
            self._begin_to_deal()
        return True

    def later(self, uid: int, key: object, call: Callable[[], None]) -> None:
        """Call it when the user has its next turn. It must not raise, and must not wait."""
        self._begin_to_deal()
        self._line.setdefault(uid, OrderedDict())[key] = call

    def never(self, uid: int, key: object) -> None:
        """Whoever waits under that key waits no longer."""
        waiting = self._line[uid]
        del waiting[key]
        if not waiting:
            del self._line[uid]

    def _begin_to_deal(self) -> None:
        if not self._is_dealing:
            self._is_dealing = True
            trio.lowlevel.spawn_system_task(self._deal)

    async def _deal(self) -> None:
        """In each round of the event loop, give MOST turns, until nobody waits for one."""
        while True:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._left = MOST
            while self._line and self._left:
                uid, waiting = self._line.popitem(last=False)
                _, call = waiting.popitem(last=False)
                if waiting:
                    self._line[uid] = waiting
                self._left -= 1
                call()
            if not self._line and self._left:
                self._is_dealing = False
                return


class Turn:
    """The turns of one user."""

    def __init__(self, turns: Turns, uid: int) -> None:
        self._turns = turns
        self._uid = uid
        self.now = turns.now

    def later(self, key: object, call: Callable[[], None]) -> None:
        self._turns.later(self._uid, key, call)

    async def take(self, number: int = 1) -> None:
        for _ in range(number):
            if not self.now():
                await self._wait()

    async def _wait(self) -> None:
        task = trio.lowlevel.current_task()
        self.later(task, partial(trio.lowlevel.reschedule, task))

        def abort(_: object) -> trio.lowlevel.Abort:
            self._turns.never(self._uid, task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
