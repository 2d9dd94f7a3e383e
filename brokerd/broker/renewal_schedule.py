# When each grant is looked at next, and the loop that does it, so that tokens are renewed ahead of their end (law 6).
# The plans come from planner.py; single_flight.py begins what is due.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.planner import ExchangePlanner
from brokerd.core.grant.renewal import Operation, Plan
from brokerd.core.ports import Clock
from brokerd.core.timing.due_heap import Schedule
from brokerd.core.timing.moment import Moment

TURN = 50  # grants that are looked at before callers have their turn: ten thousand that are due delay nobody
LOOK_AGAIN = 30.0  # seconds; no sleep is longer: a suspended machine or a stepped clock is noticed (law 8)
STUCK = 2 * LOOK_AGAIN  # seconds: the loop, which looks every LOOK_AGAIN, has not looked for too long


@dataclass(eq=False, repr=False)
class RenewalSchedule:
    """`_changed` is called with a grant's name where the schedule finds that the grant needs a login."""

    _planner: ExchangePlanner
    _clock: Clock
    _changed: Callable[[str], None]
    last_look: float = field(default_factory=trio.current_time)  # when the loop last ran, on trio's clock
    _times: Schedule = field(default_factory=Schedule)
    _new_time: trio.Event = field(default_factory=trio.Event)
    _spread: dict[str, float] = field(default_factory=dict)  # seconds, for grants that came and were not planned yet

    def at(self, name: str) -> float | None:
        """When the grant is looked at next, on CLOCK_BOOTTIME; None: not at all."""
        return self._times.at(name)

    @property
    def runs(self) -> bool:
        return trio.current_time() - self.last_look < STUCK

    async def run(self, renew: Callable[[str], None]) -> None:
        """For ever: call `renew` with each grant that is due."""
        while True:
            self._new_time, self.last_look = trio.Event(), trio.current_time()
            for number, name in enumerate(self._times.take_due(self._clock.now().boot), 1):
                renew(name)
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
            following = self._times.next()
            delay = LOOK_AGAIN if following is None else min(LOOK_AGAIN, following - self._clock.now().boot)
            with trio.move_on_after(max(0.0, delay)):
                await self._new_time.wait()

    def add(self, grant: LiveGrant, spread: float) -> None:
        """A grant came with the configuration. The loop plans it, so that callers need not wait until ten thousand are
        planned. What is due at once is put off by `spread` seconds, but at most by half of what is left of its token's
        life."""
        self._spread[grant.name] = spread
        self.look_at(grant.name, self._clock.now().boot)

    def is_new(self, name: str) -> bool:
        """Whether the grant was not planned since it came."""
        return name in self._spread

    def plan_next(self, grant: LiveGrant) -> None:
        """Set when the grant is looked at next."""
        now = self._clock.now()
        self.plan_by(grant, self._planner.by_itself(grant, now), now)

    def plan_by(self, grant: LiveGrant, plan: Plan | None, now: Moment) -> None:
        """The same, by a plan that is known already."""
        spread = self._spread.pop(grant.name, 0.0)
        renews_nothing = plan is None or plan.operation is Operation.REVOKE or plan.target is not None
        if renews_nothing and grant.note_dead_end(now):
            self._changed(grant.name)
        is_idle = plan is not None and grant.running is None
        self.look_at(grant.name, now.boot + (plan.delay or grant.bounded(spread, now)) if plan and is_idle else None)

    def look_at(self, name: str, at: float | None) -> None:
        """Look at the grant at `at`; None: not at all."""
        self._times.set(name, at)
        self._new_time.set()

    def remove(self, name: str) -> None:
        self._times.set(name, None)

    def forget_new(self) -> None:
        self._spread.clear()
