# Single flight (law 1): the one exchange of each grant: when it may begin, who waits for it, what follows it.
# How an exchange goes is exchanger.py's matter, when one is due core/renewal.py's. It knows nobody's rights.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from brokerd import telling
from brokerd.audit import Audit
from brokerd.core import record as records
from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import Issued, Rejected
from brokerd.core.ports import Clock
from brokerd.core.record import AccessToken, Record
from brokerd.core.renewal import Operation, Plan
from brokerd.core.schedule import Schedule
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted
from brokerd.exchanger import Exchanger, ExchangeStore
from brokerd.held import Flight, HeldGrant
from brokerd.metrics import Metrics
from brokerd.provider import Provider

STEPS_MOST = 3  # exchanges in one flight: a refresh token is dead, a long one is issued, a short one got with it
MEND_FIRST, MEND_LONGEST = 1.0, 30.0  # seconds between tries to store what is in memory only
SUBJECT_WAIT = 30.0  # seconds for which an exchange waits for another grant's token
HASTE = 3  # a caller brings an exchange forward at most once per this part of a lifetime (law 5)


class Store(ExchangeStore, Protocol):
    """What flights need of the store. `adopted`: it may spend (law 15)."""

    adopted: bool

    def outlives_us(self, grant: str, fingerprint: str) -> bool:
        """Whether what the disk did not take is held by the service manager, until that stops the service."""
        ...


class Flights:
    """All grants and their exchanges, which run in `nursery`, the daemon's: a caller who goes away cancels none.

    `changed` is called with a grant's name whenever something became of it.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        clock: Clock,
        exchanger: Exchanger,
        audit: Audit,
        metrics: Metrics,
        changed: Callable[[str], None],
    ) -> None:
        self.grants: dict[str, HeldGrant] = {}
        self.leaving: dict[tuple[str, str], HeldGrant] = {}  # no longer configured, their last exchange under way
        self.schedule = Schedule()
        self.rescheduled = trio.Event()
        self.looked = trio.current_time()  # when the refresher last did
        self._spread: dict[str, float] = {}  # of grants that were not looked at since they came
        self.stopping = False
        self._nursery = nursery
        self._store = store
        self._clock = clock
        self._exchanger = exchanger
        self._audit = audit
        self._metrics = metrics
        self._changed = changed
        self._mending = False

    async def emptied(self) -> bool:
        """Let go of every grant, when its exchange has ended and is stored; none is begun meanwhile. False where the
        disk does not take something: then all are held as before."""
        self.stopping, before = True, self.grants
        self.grants = {}
        for name, held in before.items():
            self.leaving[name, held.fingerprint] = held
            self.schedule.set(name, None)
        for held in before.values():
            await held.settled()
        await self.landed()
        await self.store_again()
        self.stopping = False
        if any(held.unstored for held in self._all()):
            self.grants = before
            for name, held in before.items():
                self.leaving.pop((name, held.fingerprint), None)
                self.welcome(held, 0.0)
            return False
        self.leaving.clear()
        self._spread.clear()
        return True

    # -- when

    def _plan_for_caller(self, held: HeldGrant, wanted: Wanted | None) -> Plan | None:
        """None also where a living token was brought forward a short while ago (law 5)."""
        now = self._clock.now()
        return None if self.haste_left(held, now, wanted) > 0 else self._next(held, wanted, now)

    def _next(self, held: HeldGrant, wanted: Wanted | None, now: Moment) -> Plan | None:
        """What brings the wanted token nearer. For a variant that is the grant's own renewal where that is due, so that
        no number of variants holds it up, and where there is no way to the variant without the grant's own token."""
        plan = self._allowed(held, held.plan(now, for_caller=True, wanted=wanted), now)
        if wanted is None:
            return plan
        own = self._allowed(held, held.plan(now, for_caller=False), now)
        if own is not None and own.wanted is None and own.delay <= 0:
            return own
        if plan is None and held.serves(now) is None:
            return self._allowed(held, held.plan(now, for_caller=True), now)
        return plan

    def haste_left(self, held: HeldGrant, now: Moment, wanted: Wanted | None = None) -> float:
        """Seconds until a living token may be brought forward again; 0 or less: now."""
        token = _served(held, wanted, now)
        if token is None or (hastened := held.hastened.get(wanted)) is None:
            return 0.0
        lifetime = held.settings.pace.lifetime if token.lifetime is None else token.lifetime
        return lifetime / HASTE + seconds_until(hastened, now)

    def _allowed(self, held: HeldGrant, plan: Plan | None, now: Moment) -> Plan | None:
        """The plan, unless something stands in its way that no time mends by itself."""
        if plan is None or self.stopping:
            return None
        may_spend = self._store.adopted and not held.unstored
        return plan if may_spend or not held.ability(now, plan.wanted).spends(plan.operation) else None

    # -- for callers

    async def wait_for(self, held: HeldGrant, wait: float, wanted: Wanted | None = None) -> None:
        """Until the grant's exchange for what is wanted has ended, for `wait` seconds at most. One that is held back
        for longer than that is not waited for. Exchanges for other variants have their turns before (law 1)."""
        with trio.move_on_after(wait) as scope:
            while True:
                while held.flight is None:
                    now = self._clock.now()
                    plan = self._plan_for_caller(held, wanted)
                    if plan is None and held.serves(now) is None:
                        self.reschedule(held)  # it may have come to a dead end, and has to say so
                    if plan is None or plan.delay > scope.deadline - trio.current_time():
                        return
                    if plan.delay > 0:
                        await trio.sleep(plan.delay)
                        continue
                    if plan.wanted == wanted and _served(held, wanted, now):
                        held.hasten(wanted, now)
                    self.launch(held, for_caller=True, wanted=wanted)
                    if held.flight is None:
                        return
                flight = held.flight
                await flight.done.wait()
                is_for_us = flight.wanted == wanted and flight.operation is not Operation.VERIFY
                if is_for_us and not flight.held_back:
                    return

    # -- the flight

    def renew(self, name: str) -> None:
        """What is due of the grant, if it still is: the refresher calls this."""
        held = self.grants.get(name)
        if held is None or held.flight is not None:
            return
        if name in self._spread:
            self.reschedule(held)
        else:
            self.launch(held, for_caller=False)

    def launch(self, held: HeldGrant, *, for_caller: bool, wanted: Wanted | None = None) -> None:
        if self.grants.get(held.name) is not held:  # a reload put another in its place while somebody waited
            return
        now, provider = self._clock.now(), held.provider
        if not for_caller and provider.busy >= provider.settings.concurrency:
            provider.queue[held.name] = None
            return
        if not for_caller and (shut := provider.breaker.wait(now)) > 0:
            self._look_at(held.name, now.boot + shut)
            return
        if for_caller:
            plan = self._next(held, wanted, now)
        else:
            plan = self._allowed(held, held.plan(now, for_caller=False), now)
        if plan is None or plan.delay > 0:
            self.reschedule(held)
            return
        provider.take_place()
        held.flight = Flight(plan.operation, plan.wanted)
        self.schedule.set(held.name, None)
        self._nursery.start_soon(self._fly, held, held.flight, plan, provider, name=f"{plan.operation} {held.name}")

    async def _fly(self, held: HeldGrant, flight: Flight, plan: Plan, provider: Provider) -> None:
        try:
            if plan.operation is Operation.REVOKE:
                await telling.tell_revoked(self._exchanger, held)
            else:
                await self._exchange(held, plan)
        except Exception:
            self._audit.bug("an exchange ended in a fault of brokerd's own", **held.about)
            await self._exchanger.fail(held, "a fault of brokerd's own; its log says more")
        finally:
            self._land(held, flight, provider)

    @asynccontextmanager
    async def slot(self, held: HeldGrant) -> AsyncIterator[None]:
        """The grant's place for its one exchange (law 1), for who only asks about it: what is due meanwhile comes
        after. It is given back when who asked goes away."""
        while held.flight is not None:
            await held.flight.done.wait()
        provider, held.flight = held.provider, (flight := Flight(Operation.VERIFY))
        provider.take_place()
        try:
            yield
        finally:
            self._land(held, flight, provider)

    def _land(self, held: HeldGrant, flight: Flight, provider: Provider) -> None:
        held.flight = None
        self._let_leave(held)
        provider.busy -= 1
        flight.done.set()
        self._after_flight(held, provider)

    async def _exchange(self, held: HeldGrant, plan: Plan) -> None:
        """An exchange, and those that have to follow it at once; each is stored before the next begins."""
        wanted = plan.wanted
        for _ in range(STEPS_MOST):
            outcome = await self._exchanger.exchange(held, plan, self._subject)
            now = self._clock.now()
            dead_end = not isinstance(outcome, Issued | Rejected)
            if dead_end or (isinstance(outcome, Issued) and _served(held, wanted, now)):
                return
            held.attempted = None  # what follows is part of the same errand
            following = self._next(held, wanted, now)
            if following is None or following.delay > 0:
                return
            plan = following

    async def settle(self, held: HeldGrant, step: Callable[[Record], Record | None]) -> None:
        """Change the record by what a login brought: when no exchange of the grant is under way, whose end would speak
        of what was before, and none begins meanwhile (law 1)."""
        while held.flight is not None:
            await held.flight.done.wait()
        held.flight = flight = Flight(Operation.LOGIN)
        try:
            await held.change(self._store, step)
        finally:
            held.flight = None
            held.attempted = None
            self._let_leave(held)
            flight.done.set()
            self.announce(held)

    async def _subject(self, name: str) -> Secret | None:
        """The token of a grant with which another one's is got."""
        held = self.grants.get(name)
        if held is None:
            return None
        if held.serves(self._clock.now()) is None:
            await self.wait_for(held, SUBJECT_WAIT)
        token = held.serves(self._clock.now())
        return None if token is None else token.value

    async def landed(self) -> None:
        """Until no exchange is under way."""
        while flight := next((held.flight for held in self._all() if held.flight), None):
            await flight.done.wait()

    def tell_what_is_lost(self) -> None:
        """At the end: what the store did not take to the last goes with this process, or waits for the next."""
        for held in self._all():
            if held.unstored:
                record = held.record
                state, generation = str(record.state), record.generation
                words = "its newest state could not be stored and is lost"
                if self._store.outlives_us(held.name, held.fingerprint):
                    words = "its newest state could not be stored; systemd holds it over a restart, not over a stop"
                self._audit.warned(words, **held.about, state=state, generation=generation, stored=held.stored)

    def _all(self) -> tuple[HeldGrant, ...]:
        return (*self.grants.values(), *self.leaving.values())

    def _let_leave(self, held: HeldGrant) -> None:
        """One that is no longer configured may go when its exchange has ended and its tokens are stored."""
        if held.flight is None and not held.unstored and not held.is_changing:
            self.leaving.pop((held.name, held.fingerprint), None)

    def _after_flight(self, held: HeldGrant, provider: Provider) -> None:
        while provider.queue and provider.busy < provider.settings.concurrency and not self.stopping:
            self.renew(provider.queue.popitem(last=False)[0])
        self.announce(held)
        if provider.take_reopened():
            now = self._clock.now().boot
            for each in self.grants.values():
                if each.provider is provider and each.flight is None:
                    self._look_at(each.name, now)

    def announce(self, held: HeldGrant) -> None:
        """The grant has changed: its next renewal is set, its watchers are told, what is unstored is mended."""
        if self.grants.get(held.name) is held:
            self.reschedule(held)
            self._changed(held.name)
        else:
            self._let_leave(held)
        self._mend_later(held)

    def _mend_later(self, held: HeldGrant) -> None:
        if held.unstored and not self._mending:
            self._mending = True
            self._nursery.start_soon(self._mend, name="mend the store")

    def welcome(self, held: HeldGrant, spread: float) -> None:
        """A grant that came with the configuration: the refresher looks at it, so that callers need not wait until ten
        thousand are planned. What is due at once is put off by `spread` seconds, but not beyond half of what is left of
        its token's life."""
        self._spread[held.name] = spread
        self._look_at(held.name, self._clock.now().boot)
        self._mend_later(held)

    def reschedule(self, held: HeldGrant) -> None:
        """Set when the refresher is to look at the grant next."""
        now, spread = self._clock.now(), self._spread.pop(held.name, 0.0)
        plan = held.plan(now, for_caller=False)
        if plan is None or plan.operation is Operation.REVOKE or plan.wanted is not None:
            self._note_dead_end(held, now)
        plan = self._allowed(held, plan, now)
        at = None if plan is None or held.flight is not None else now.boot + (plan.delay or held.bounded(spread, now))
        self._look_at(held.name, at)

    def _look_at(self, name: str, at: float | None) -> None:
        """Have the refresher look at the grant at `at`, or not at all: at one after the other, however many are due."""
        self.schedule.set(name, at)
        self.rescheduled.set()

    def _note_dead_end(self, held: HeldGrant, now: Moment) -> None:
        """A grant that has nothing left to get a token with needs a login, and says so before its token ends."""
        record = held.record
        if held.flight is not None or held.blocked or held.stopped:  # nothing is planned, whatever is left
            return
        if record.state not in (State.READY, State.RETRYING) or held.plan(now, for_caller=True) is not None:
            return
        words = "its refresh token has expired" if record.refresh_token else "it has no refresh token yet"
        held.record = records.dated(record, records.lacks_login(record, words), now)
        self._changed(held.name)

    async def _mend(self) -> None:
        """Store what is in memory only, as soon as the store can be written again (law 2)."""
        delay = MEND_FIRST
        while any(held.unstored for held in self._all()):
            self._metrics.store_failures.inc()
            await trio.sleep(delay)
            delay = min(2 * delay, MEND_LONGEST)
            await self.store_again()
        self._mending = False

    async def store_again(self) -> None:
        """Try once to store what could not be stored yet."""
        unstored = [held for held in self._all() if held.unstored]
        async with trio.open_nursery() as nursery:
            for held in unstored:
                nursery.start_soon(held.change, self._store, _unchanged)
        for held in unstored:
            if not held.unstored:
                self._audit.said("stored at last", **held.about)
                self._let_leave(held)
                if self.grants.get(held.name) is held:
                    self.reschedule(held)


def _served(held: HeldGrant, wanted: Wanted | None, now: Moment) -> AccessToken | None:
    return held.serves(now) if wanted is None else held.serves_variant(wanted, now)


def _unchanged(record: Record) -> Record:
    return record
