# Callers that wait for a token: each waits for the one exchange of the grant, and all get the same result (law 1).
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.planner import ExchangePlanner
from brokerd.broker.renewal_schedule import RenewalSchedule
from brokerd.broker.single_flight import SingleFlight
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.target import Target
from brokerd.core.ports import Clock
from brokerd.telemetry import steps


@dataclass(eq=False, repr=False)
class TokenWait:
    """Begins the exchange that a caller needs, where none is under way. A caller that goes away ends no exchange."""

    _registry: GrantRegistry
    _planner: ExchangePlanner
    _schedule: RenewalSchedule
    _single_flight: SingleFlight
    _clock: Clock

    async def wait_for(
        self, grant: LiveGrant, wait: float, target: Target | None = None, has: Callable[[], bool] = lambda: False
    ) -> None:
        """Until the grant's exchange for `target` has ended, for `wait` seconds at most. An exchange that may not begin
        within that time is not waited for. Exchanges for other targets have their turns before (law 1). `has`: whether
        the caller has what it waits for, because another host of the fleet was faster."""
        with trio.move_on_after(wait) as scope:
            while True:
                while grant.running is None:
                    if has() or not await self._begin(grant, target, scope.deadline):
                        return
                running, before = grant.running, _results(grant)
                self._single_flight.join(running, grant)
                await running.done.wait()
                is_for_us = running.target == target and running.operation is not Operation.VERIFY
                # What another host's exchange brought may have been known before this wait began.
                is_late = running.elsewhere and _results(grant) == before
                if has() or (is_for_us and not running.postponed and not is_late):
                    return

    async def _begin(self, grant: LiveGrant, target: Target | None, deadline: float) -> bool:
        """Begin the next exchange, or wait until it may begin. False: there is none before the deadline."""
        now = self._clock.now()
        plan = self._planner.for_caller(grant, target, now)
        if plan is None and grant.serves(now) is None:
            self._schedule.plan_next(grant)  # the grant may need a login now, and has to say so
        if plan is None or plan.delay > deadline - trio.current_time():
            return False
        if plan.delay > 0:
            breaker = grant.provider.breaker
            self._single_flight.note(grant, lambda: steps.waits(plan.delay, breaker, grant.record, now))
            await trio.sleep(plan.delay)
            return True
        if not self._registry.holds(grant):  # a reload replaced it
            return False
        if plan.target == target and grant.serves_target(target, now):
            grant.note_early_renewal(target, now)
        self._single_flight.begin(grant, plan)
        return True


def _results(grant: LiveGrant) -> tuple[object, ...]:
    """What an exchange changes, however it ends."""
    record = grant.record
    return record.generation, record.failures, record.last_error
