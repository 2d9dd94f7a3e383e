# The one lease of this host (laws 1 and 3): its claims live as long as it does, and so long it may send stored tokens,
# with a margin. What a pause takes counts, because CLOCK_BOOTTIME goes on.
from __future__ import annotations

import contextlib

import trio

from brokerd.core.fleet.etcd import Etcd, EtcdError, LeaseGone
from brokerd.core.ports import Clock

LIFE = 15  # seconds
EVERY = 5.0  # seconds between two renewals
MARGIN = 3.0  # seconds before its end when nothing is sent any more


class HostLease:
    """`number`: etcd's id of it; 0: there is none."""

    def __init__(self, etcd: Etcd, clock: Clock) -> None:
        self._etcd = etcd
        self._clock = clock
        self.number = 0
        self._until = float("-inf")
        self.woken = trio.Event()

    async def keep(self) -> None:
        """Renew it, or get a new one: then what was written with the old one is gone, or will be. Raises EtcdError."""
        asked = self._clock.now().boot
        if self.number:
            try:
                self._until = asked + min(LIFE, await self._etcd.keep_alive(self.number))
                return
            except LeaseGone:
                self.drop()
        self.number, life = await self._etcd.grant_lease(LIFE)
        self._until = asked + min(LIFE, life)

    def drop(self) -> None:
        """It is not used any more."""
        self.number, self._until = 0, float("-inf")
        self.wake()

    def wake(self) -> None:
        """Who keeps it looks again at once."""
        self.woken.set()
        self.woken = trio.Event()

    def is_safe(self, number: int) -> bool:
        """Whether that lease surely lives, and will for a while."""
        return number == self.number != 0 and self._clock.now().boot < self._until - MARGIN

    async def end(self) -> None:
        """The host leaves the fleet: others need not wait."""
        number = self.number
        self.drop()
        if number:
            with contextlib.suppress(EtcdError):
                await self._etcd.end_lease(number)
