# What is known of a grant's variants beside its record, for as long as the daemon runs: which the provider refused, and
# how many were got lately, so that no caller makes it ask without end.
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from brokerd.core.moment import Moment, seconds_until
from brokerd.core.wanted import Wanted

DECLINED_FOR = 300.0  # seconds for which a refused variant is not asked for again
DECLINED_MOST = 64  # refused variants that are remembered; more than a grant has variants
INTERVAL, BURST = 1.0, 16  # seconds between two exchanges for variants of a grant, once so many were made


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider's words, and until when they are remembered."""

    reason: str
    until: Moment


class Variety:
    """`doubted`: a password was sent for a variant that was refused. Which of the two was meant nobody knows, so it is
    not sent for variants again before it brought the grant's own token (law 7)."""

    __slots__ = ("_paid_until", "_refusals", "doubted")

    def __init__(self) -> None:
        self._refusals: OrderedDict[Wanted, Refusal] = OrderedDict()
        self._paid_until = float("-inf")
        self.doubted = False

    def refuse(self, wanted: Wanted, reason: str, now: Moment) -> None:
        self._refusals.pop(wanted, None)
        self._refusals[wanted] = Refusal(reason, now.after(DECLINED_FOR))
        if len(self._refusals) > DECLINED_MOST:
            self._refusals.popitem(last=False)

    def refusal(self, wanted: Wanted, now: Moment) -> Refusal | None:
        found = self._refusals.get(wanted)
        return found if found is not None and seconds_until(found.until, now) > 0 else None

    def forget(self) -> None:
        """Somebody says to look again."""
        self._refusals.clear()
        self.doubted = False

    def begin(self, now: Moment) -> None:
        """An exchange for a variant begins."""
        self._paid_until = max(self._paid_until, now.boot) + INTERVAL

    def wait(self, wanted: Wanted, now: Moment) -> float:
        """Seconds before the variant may be asked for; 0 or less: now."""
        refusal = self.refusal(wanted, now)
        paced = self._paid_until - now.boot - BURST * INTERVAL
        return max(paced, seconds_until(refusal.until, now)) if refusal else paced
