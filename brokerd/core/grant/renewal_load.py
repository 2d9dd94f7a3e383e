# Keeps the load on a provider flat: when thousands of tokens came at once, some of them are renewed earlier, once each,
# so that they never fall due at once again (law 6). Pure: time and chance are arguments.
from __future__ import annotations

from math import frexp

from brokerd.core.grant.renewal import AHEAD, SPREAD, due_in
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.moment import Moment

MEAN = AHEAD + SPREAD / 2  # of a lifetime, until a renewal
LEAST = 60.0  # seconds; tokens with a shorter life keep their time
SLOTS = 96  # in a lifetime, or up to twice as many: a slot is a length of time in which so many renewals have room
FREE = 32  # renewals in a slot that are no load; so few grants keep their time
HEADROOM = 1.02  # how full a slot may be, compared with all slots in the middle


class RenewalLoad:
    """How many tokens of one provider fall due when. Tokens whose lifetimes are alike share their slots. What is
    renewed at another time than it was noted for is counted wrong until that time has passed."""

    __slots__ = ("_alike",)

    def __init__(self) -> None:
        self._alike: dict[int, _Slots] = {}

    def jitter(self, lifetime: float, now: float, jitter: float) -> float:
        """The jitter of a token that was issued at `now`, on CLOCK_BOOTTIME. It is the one that was drawn, from 0 to 1,
        unless too many others fall due then: then it is negative, and the token is renewed earlier."""
        if lifetime < LEAST:
            return jitter
        slots = self._slots(lifetime, now)
        moved = slots.taken(now + lifetime * (AHEAD + SPREAD * jitter), lifetime * MEAN, jitter)
        return jitter if moved is None else ((moved - now) / lifetime - AHEAD) / SPREAD

    def note(self, token: AccessToken, unnamed: float, now: Moment) -> None:
        """A token whose jitter was decided before. `unnamed`: its lifetime if the provider named none."""
        lifetime = unnamed if token.lifetime is None else token.lifetime
        if lifetime >= LEAST and (delay := due_in(token, unnamed, now)) > 0:
            self._slots(lifetime, now.boot).note(now.boot + delay)

    def _slots(self, lifetime: float, now: float) -> _Slots:
        exponent = frexp(lifetime)[1]
        slots = self._alike.get(exponent)
        if slots is None:
            slots = self._alike[exponent] = _Slots(2.0**exponent / SLOTS)
        slots.forget_before(now)
        return slots


class _Slots:
    """`width`: seconds of a slot. Slots are numbered from time 0."""

    __slots__ = ("_counts", "_first", "_total", "_width")

    def __init__(self, width: float) -> None:
        self._width = width
        self._counts: dict[int, int] = {}
        self._total = 0
        self._first = 0  # the slot after the present one: what is due sooner cannot be moved

    def forget_before(self, now: float) -> None:
        first = int(now / self._width) + 1
        if first != self._first:
            self._first = first
            self._counts = {slot: count for slot, count in self._counts.items() if slot >= first}
            self._total = sum(self._counts.values())

    def note(self, due: float) -> int:
        """Returns the slot."""
        slot = int(due / self._width)
        if slot >= self._first:
            self._counts[slot] = self._counts.get(slot, 0) + 1
            self._total += 1
        return slot

    def taken(self, due: float, mean: float, chance: float) -> float | None:
        """Takes room at `due`, or earlier: then returns when. `mean`: seconds until a renewal in general."""
        counts, last = self._counts, int(due / self._width)
        room = max(FREE, HEADROOM * self._total * self._width / mean)
        if counts.get(last, 0) < room or last <= self._first:
            self.note(due)
            return None
        slot = min(range(last - 1, self._first - 1, -1), key=lambda each: counts.get(each, 0))  # where there are fewest
        earlier = (slot + chance) * self._width
        self.note(earlier)
        return min(earlier, due)
