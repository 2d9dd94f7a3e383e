# What a store that no other host shares says of exchanges: brokerd has them all to itself.
from __future__ import annotations

from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment


class Alone:
    """Of the Store port."""

    cut_off = False
    misses = False

    async def claim(self, _grant: str, _fingerprint: str, _at: Moment, /) -> None:
        """Nobody else has it."""

    def is_kept_here(self, _grant: str, _fingerprint: str, /) -> bool:
        return False

    def last_look(self, _grant: str, _fingerprint: str, /) -> None:
        """A stored token may leave."""

    async def share_breaker(self, _provider: str, _breaker: Breaker, /) -> None:
        """There is no other host."""

    async def end(self, _grant: str, _fingerprint: str, /, *, unstored: bool) -> None:
        """Nobody waits for it."""
        del unstored

    async def until_free(self, _grant: str, _fingerprint: str, /) -> None:
        """It is."""

    def patience(self, _grant: str, _fingerprint: str, _left: float | None, /) -> float:
        return 0.0
