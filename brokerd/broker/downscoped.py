# How often a grant's provider is asked for downscoped tokens: what it refused is not asked for again at once, and
# callers cannot cause requests without end. Kept in memory only.
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from brokerd.core.grant.target import Target
from brokerd.core.timing.moment import Moment, seconds_until

DECLINED_FOR = 300.0  # seconds for which a refused downscoped token is not asked for again
DECLINED_MOST = 64  # refusals that are remembered; more than a grant has downscoped tokens
INTERVAL, BURST = 1.0, 16  # seconds between two exchanges for downscoped tokens of a grant, after so many at once


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider's words, and until when they are remembered."""

    reason: str
    until: Moment


@dataclass(eq=False, slots=True)
class DownscopedRequests:
    """`doubted`: a password was sent for a downscoped token that was refused. Nobody knows whether the password or the
    scope was meant, so the password is not sent for downscoped tokens again before it brought the grant's own token
    (law 7)."""

    _refusals: OrderedDict[Target, Refusal] = field(default_factory=OrderedDict)
    _paid_until: float = float("-inf")
    doubted: bool = False

    def refuse(self, target: Target, reason: str, now: Moment) -> None:
        self._refusals.pop(target, None)
        self._refusals[target] = Refusal(reason, now.after(DECLINED_FOR))
        if len(self._refusals) > DECLINED_MOST:
            self._refusals.popitem(last=False)

    def refusal(self, target: Target, now: Moment) -> Refusal | None:
        found = self._refusals.get(target)
        return found if found is not None and seconds_until(found.until, now) > 0 else None

    def forget(self) -> None:
        """A person says to try again."""
        self._refusals.clear()
        self.doubted = False

    def begin(self, now: Moment) -> None:
        """An exchange for a downscoped token begins."""
        self._paid_until = max(self._paid_until, now.boot) + INTERVAL

    def wait(self, target: Target, now: Moment) -> float:
        """Seconds before the downscoped token may be asked for; 0 or less: now."""
        refusal = self.refusal(target, now)
        paced = self._paid_until - now.boot - BURST * INTERVAL
        return max(paced, seconds_until(refusal.until, now)) if refusal else paced
