# How the users of one brokerd-proxy share its one thread. Whoever wants to begin a request, or to pass on a piece of a
# body, takes a turn. As long as few want one, nobody waits. Otherwise users have their turns one after the other, so a
# user with thousands of connections delays another one no longer than a user with one.
from __future__ import annotations

from collections import OrderedDict

import trio

MOST = 8  # turns in one round of the event loop; one takes about 0.3 ms
HANDSHAKE = 4  # turns that a new connection to an upstream counts as


class Turns:
    """`now` is enough for most: only if it returns False, `wait` must follow."""

    def __init__(self) -> None:
        self._left = MOST
        self._line: OrderedDict[int, trio.lowlevel.ParkingLot] = OrderedDict()  # users, and who waits of each
        self._is_dealing = False

    def now(self, _uid: int) -> bool:
        """Whether the turn is had without waiting."""
        if self._line or not self._left:
            return False
        self._left -= 1
        if not self._left:
            self._begin_to_deal()
        return True

    async def wait(self, uid: int) -> None:
        """Until the user has its next turn."""
        self._begin_to_deal()
        await self._line.setdefault(uid, trio.lowlevel.ParkingLot()).park()

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
                self._left -= waiting.unpark(count=1) != []
                if waiting:
                    self._line[uid] = waiting
            if not self._line and self._left:
                self._is_dealing = False
                return


class Turn:
    """The turns of one user."""

    def __init__(self, turns: Turns, uid: int) -> None:
        self._turns = turns
        self._uid = uid

    async def take(self, number: int = 1) -> None:
        for _ in range(number):
            if not self._turns.now(self._uid):
                await self._turns.wait(self._uid)
