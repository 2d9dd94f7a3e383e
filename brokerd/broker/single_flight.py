# Single flight (law 1): a grant has at most one exchange under way. This begins exchanges, runs those that must follow
# at once, and says what changes when one has ended. exchanges.py runs one exchange; planner.py chooses it.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass

import trio

from brokerd.broker import revocations
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant, RunningExchange
from brokerd.broker.planner import ExchangePlanner
from brokerd.broker.renewal_schedule import RenewalSchedule
from brokerd.broker.store_repair import StoreRepair
from brokerd.core.exchange.outcomes import Issued, Rejected
from brokerd.core.grant.history import Ended
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation, Plan
from brokerd.core.ports import Clock
from brokerd.core.timing.moment import seconds_until
from brokerd.telemetry import steps, tracing
from brokerd.telemetry.event_log import EventLog, acting

STEPS_MOST = 3  # exchanges in a row: a refresh token is dead, a long one is issued, a short one got with it


@dataclass(eq=False, repr=False)
class SingleFlight:
    """Exchanges run in `nursery`, the daemon's: a caller that goes away cancels none. `changed` is called with a
    grant's name when something about it has changed."""

    _nursery: trio.Nursery
    _registry: GrantRegistry
    _planner: ExchangePlanner
    _schedule: RenewalSchedule
    _repair: StoreRepair
    _runner: ExchangeRunner
    _clock: Clock
    _events: EventLog
    _changed: Callable[[str], None]

    # -- beginning

    def renew(self, name: str) -> None:
        """The schedule says that the grant is due."""
        grant = self._registry.grants.get(name)
        if grant is None or grant.running is not None:
            return
        if self._schedule.is_new(name):
            self._schedule.plan_next(grant)
        else:
            self.begin_due(grant)

    def begin_due(self, grant: LiveGrant) -> None:
        """Begin what the grant needs by itself, if it is due and its provider has room."""
        if not self._registry.holds(grant):
            return
        now, provider = self._clock.now(), grant.provider
        if provider.busy >= provider.settings.concurrency:
            provider.queue[grant.name] = None
            return
        if (shut := provider.breaker.wait(now)) > 0:
            self._schedule.look_at(grant.name, now.boot + shut)
            return
        plan = self._planner.by_itself(grant, now)
        if plan is None or plan.delay > 0:
            self._schedule.plan_by(grant, plan, now)
        elif (wait := self._planner.patience(grant, now)) > 0:
            self._schedule.look_at(grant.name, now.boot + wait)
        else:
            self.begin(grant, plan)

    def begin(self, grant: LiveGrant, plan: Plan) -> None:
        """Begin the planned exchange."""
        running = self._occupy(grant, plan)
        self._schedule.remove(grant.name)
        generation = grant.record.generation
        self._nursery.start_soon(self._run, grant, running, plan, generation, name=f"{plan.operation} {grant.name}")

    def _occupy(self, grant: LiveGrant, plan: Plan) -> RunningExchange:
        grant.provider.take_place()
        trail = self._trail(grant)
        self._note_begin(trail, grant, plan)
        grant.running = RunningExchange(plan.operation, grant.provider, trail, plan.target)
        return grant.running

    def note(self, grant: LiveGrant, make: Callable[[], steps.Step]) -> None:
        """A step before the exchange begins, for those who follow the grant."""
        self._events.traces.note(grant.name, make)

    def _trail(self, grant: LiveGrant) -> tracing.Trail:
        return tracing.begun(self._runner.entropy, grant.name, self._events.traces)

    def _note_begin(self, trail: tracing.Trail, grant: LiveGrant, plan: Plan) -> None:
        by_person = "a person asked for it" if grant.insisted else None
        asker = by_person or (None if acting.get() is None else "a caller asked for it")
        trail.note(lambda: steps.begins(grant.record, plan, self._clock.now(), asker=asker))

    def join(self, running: RunningExchange, grant: LiveGrant) -> None:
        """A request waits for the exchange that is under way. If it came with an id of its own, the log says which
        exchange answers it."""
        asked = tracing.given.get()
        if asked is not None and asked != running.trail.request_id:
            self._events.joined(grant.name, running.trail.request_id)

    # -- running

    async def _run(self, grant: LiveGrant, running: RunningExchange, plan: Plan, generation: int) -> None:
        """`generation`: the one that was planned for."""
        tracing.current.set(running.trail)
        try:
            if grant.record.generation != generation:  # another host was faster than this task
                running.postponed = True
            elif plan.operation is Operation.REVOKE:
                await revocations.revoke_pending(self._runner, grant)
            else:
                await self._exchange(grant, running, plan)
        except Exception:
            self._events.bug("exchange", **grant.about)
            await self._runner.fail(grant, "a fault of brokerd's own; its log says more")
        finally:
            self._end(grant, running)

    async def _exchange(self, grant: LiveGrant, running: RunningExchange, plan: Plan) -> None:
        """An exchange, and those that have to follow it at once; each is stored before the next begins."""
        target, following = plan.target, plan
        for _ in range(STEPS_MOST):
            try:
                outcome = await self._runner.exchange(grant, following)
            finally:
                with trio.CancelScope(shield=True):
                    await self._runner.store.end(grant.name, grant.fingerprint, unstored=grant.unstored)
            now = self._clock.now()
            leads_nowhere = not isinstance(outcome, Issued | Rejected)
            if leads_nowhere or (isinstance(outcome, Issued) and grant.serves_target(target, now)):
                return
            grant.attempted = None  # what follows belongs to the same try
            found = self._planner.towards(grant, target, now)
            if found is None or found.delay > 0:
                return
            following = found
            self._note_begin(running.trail, grant, following)

    def _end(self, grant: LiveGrant, running: RunningExchange) -> None:
        provider, waiting = running.provider, running.done.statistics().tasks_waiting
        grant.running = None
        self._registry.release(grant)
        provider.busy -= 1
        running.done.set()
        while provider.queue and provider.busy < provider.settings.concurrency and not self._planner.stopping:
            nobody = Context()  # who asked for the exchange that has ended did not ask for the next one
            nobody.run(self.renew, provider.queue.popitem(last=False)[0])
        self.grant_changed(grant)
        running.trail.note(lambda: self._end_of(grant, running, waiting))
        if provider.take_reopened():
            now = self._clock.now().boot
            for each in self._registry.grants.values():
                if each.provider is provider and each.running is None:
                    self._schedule.look_at(each.name, now)

    def _end_of(self, grant: LiveGrant, running: RunningExchange, waiting: int) -> steps.Step:
        now, token, at = self._clock.now(), grant.serves(self._clock.now()), self._schedule.at(grant.name)
        lives = seconds_until(token.expires, now) if token is not None and token.expires is not None else None
        return steps.ends(waiting, lives, None if at is None else at - now.boot, postponed=running.postponed)

    # -- what must not happen while an exchange is under way

    @asynccontextmanager
    async def reserved(self, grant: LiveGrant) -> AsyncIterator[None]:
        """No exchange of the grant is under way and none begins meanwhile, for one that only asks about its tokens."""
        await _until_idle(grant)
        running = self._occupy(grant, Plan(Operation.VERIFY, 0.0))
        before = tracing.current.set(running.trail)
        try:
            yield
        finally:
            tracing.current.reset(before)
            self._end(grant, running)

    async def change_when_idle(
        self, grant: LiveGrant, step: Callable[[Record], Record | None], ended: Ended | None = None
    ) -> None:
        """Change the record by what a login brought. Waits until no exchange is under way, because its outcome would be
        about the tokens from before; none begins meanwhile (law 1)."""
        await _until_idle(grant)
        grant.running = running = RunningExchange(Operation.LOGIN, grant.provider, self._trail(grant))
        try:
            await grant.change(self._runner.store, step, ended)
        finally:
            grant.running = None
            grant.attempted = None
            self._registry.release(grant)
            running.done.set()
            self.grant_changed(grant)

    # -- the grants as a whole

    def admit(self, grant: LiveGrant, spread: float) -> None:
        """A grant came with the configuration: plan it, and store what is not stored."""
        self._schedule.add(grant, spread)
        self._repair.start_if_needed(grant)

    def grant_changed(self, grant: LiveGrant) -> None:
        """Plan the grant's next renewal, tell its watchers, and begin to store what is not stored."""
        if self._registry.holds(grant):
            self._schedule.plan_next(grant)
            self._changed(grant.name)
        else:
            self._registry.release(grant)
        self._repair.start_if_needed(grant)

    async def until_told(self, grant: LiveGrant) -> None:
        """Until the provider was told of every pending revocation, or cannot be told now."""
        while grant.record.pending_revocations:
            if grant.running is None:
                self.begin_due(grant)
            if grant.running is None:
                return
            await grant.running.done.wait()
            if grant.record.revocation_failures:
                return

    async def until_all_idle(self) -> None:
        while running := next((grant.running for grant in self._registry.all() if grant.running), None):
            await running.done.wait()

    async def empty(self) -> bool:
        """Let go of every grant when its exchange has ended and is stored; none begins meanwhile. False: something
        could not be stored, so all grants are kept."""
        self._planner.stopping, before = True, self._registry.empty()
        for name in before:
            self._schedule.remove(name)
        for grant in before.values():
            await grant.settled()
        await self.until_all_idle()
        await self._repair.store_again()
        self._planner.stopping = False
        if any(grant.unstored for grant in self._registry.all()):
            self._registry.restore(before)
            for grant in before.values():
                self.admit(grant, 0.0)
            return False
        self._registry.forget_leaving()
        self._schedule.forget_new()
        return True


async def _until_idle(grant: LiveGrant) -> None:
    while grant.running is not None:
        await grant.running.done.wait()
