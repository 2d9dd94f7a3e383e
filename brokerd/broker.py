# The use cases: get, refresh, revoke, import, forget, adopt, status, watch; and single flight (law 1).
# It decides without awaiting, then lets the I/O happen, then looks again. How an exchange goes is exchanger.py's
# matter, when one is due core/renewal.py's, what is in the configuration is reload.py's to bring in.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from brokerd.audit import Audit
from brokerd.core import record as records
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until, wall_time
from brokerd.core.outcome import Issued, Rejected, Token
from brokerd.core.ports import Clock, Entropy, StoreError
from brokerd.core.record import AccessToken, Record
from brokerd.core.renewal import Operation, Plan
from brokerd.core.schedule import Schedule
from brokerd.core.secret import Secret
from brokerd.exchanger import Exchanger, ExchangeStore
from brokerd.held import Flight, HeldGrant
from brokerd.metrics import Metrics

STEPS_MOST = 3  # exchanges in one flight: a refresh token is dead, a long one is issued, a short one got with it
MEND_FIRST, MEND_LONGEST = 1.0, 30.0  # seconds between tries to store what is in memory only
HASTE = 3  # a caller brings an exchange forward at most once per this part of a lifetime (law 5)
STOPPED = "brokerd is stopping; try again when it is back"


class Store(ExchangeStore, Protocol):
    """What the broker needs of the store."""

    adopted: bool
    trouble: str | None

    async def forget(self, grant: str, fingerprint: str | None = None) -> int: ...

    async def adopt(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Revocation:
    """What became of a revocation: whether it is durable, and what the provider knows (docs/protocol.md)."""

    stored: bool
    provider: str
    detail: str


class Broker:
    """All grants, and everything that can be done with them. Exchanges run in `nursery`, the daemon's: a caller who
    goes away cancels none."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        exchanger: Exchanger,
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        self.grants: dict[str, HeldGrant] = {}
        self.schedule = Schedule()
        self.rescheduled = trio.Event()
        self.stopping = False
        self.store = store
        self.audit = audit
        self.metrics = metrics
        self._nursery = nursery
        self._clock = clock
        self._entropy = entropy
        self._exchanger = exchanger
        self._watchers: dict[str, set[Callable[[str], None]]] = {}
        self._mending = False

    # -- fetching

    def cached(self, name: str, min_ttl: float = 0.0) -> AccessToken | None:
        """The living token of a grant, if there is one: no thread, no disk, no lock (DESIGN.md 2)."""
        held = self.grants.get(name)
        return None if held is None else held.serves(self._clock.now(), min_ttl)

    def expires_at(self, token: AccessToken) -> float | None:
        """When the token dies, in Unix seconds as the wall clock goes now; None: nobody knows."""
        return None if token.lifetime is None else wall_time(token.issued.after(token.lifetime), self._clock.now())

    async def get(
        self, name: str, *, min_ttl: float = 0.0, wait: float = 10.0, refused: str | None = None
    ) -> AccessToken:
        """A living token with more than `min_ttl` seconds to live that is not `refused`. Raises Failure within `wait`
        seconds; until then it waits for the grant's one exchange."""
        held = self.held(name)
        _check_min_ttl(held, min_ttl)

        def wanted() -> AccessToken | None:
            token = held.serves(self._clock.now(), min_ttl)
            return None if token is None or token.value.reveal() == refused else token

        if (token := wanted()) is not None:
            self.metrics.gets_cached.inc()
            return token
        await self._await_flight(held, wait)
        if (token := wanted()) is None:
            self.metrics.gets_failed.inc()
            raise self.failure(held)
        self.metrics.gets_waited.inc()
        return token

    async def refresh(self, name: str, *, wait: float = 10.0) -> AccessToken:
        """A new token now, by hand. What held the grant back is let go first, but not an interruption (law 3)."""
        held = self.held(name)
        if held.record.state is not State.REVOKED and not held.blocked:
            held.credentials = None
            held.attempted = None
            can_issue = held.can_issue()
            await held.change(self.store, lambda record: records.again(record, can_issue=can_issue, by_hand=True))
        before = held.record.generation
        await self._await_flight(held, wait)
        token = held.serves(self._clock.now())
        if token is None or held.record.generation == before:
            raise self.failure(held)
        return token

    def held(self, name: str) -> HeldGrant:
        """Raises Failure for a name that is not there."""
        held = self.grants.get(name)
        if held is None:
            raise unknown(name)
        return held

    def failure(self, held: HeldGrant) -> Failure:
        """Why the grant has no token to serve, and what mends it."""
        name, record = held.name, held.record
        why = f": {record.last_error}" if record.last_error else ""
        if held.blocked:
            return Failure(Code.MISCONFIGURED, f"{name}: {held.blocked}", name)
        if held.stopped or record.state is State.REVOKED:
            words = f"{name} was revoked; a new refresh token ends that: brokerctl import {name}"
            return Failure(Code.REVOKED, words, name)
        if self.stopping:
            return Failure(Code.UNAVAILABLE, STOPPED, name, 1.0)
        now = self._clock.now()
        plan = held.plan(now, for_caller=True)
        if not self.store.adopted and plan and held.ability(now).spends(plan.operation):
            words = f"{name}: the store was restored or copied to this machine and spends nothing: brokerctl adopt"
            return Failure(Code.UNAVAILABLE, words, name, 60.0)
        match record.state:
            case State.NEEDS_LOGIN:
                words = f"{name} needs a login{why}; give it a refresh token: brokerctl import {name}"
                return Failure(Code.NEEDS_LOGIN, words, name)
            case State.MISCONFIGURED:
                words = f"{name} is misconfigured{why}; mend it, then: brokerctl reload, or brokerctl refresh {name}"
                return Failure(Code.MISCONFIGURED, words, name)
            case _:
                if record.interrupted and plan and plan.delay > 0:
                    why += "; an interrupted exchange may have used up its refresh token, which is not risked yet"
                after = max(1.0, plan.delay if plan else 0.0, self._haste_left(held, now))
                return Failure(Code.UNAVAILABLE, f"{name} has no such token now{why}", name, after)

    async def _await_flight(self, held: HeldGrant, wait: float) -> None:
        """Until the grant's exchange has ended, for `wait` seconds at most. One that is held back for longer than that
        is not waited for."""
        with trio.move_on_after(wait) as scope:
            while held.flight is None:
                plan = self._plan_for_caller(held)
                if plan is None or plan.delay > scope.deadline - trio.current_time():
                    return
                if plan.delay > 0:
                    await trio.sleep(plan.delay)
                    continue
                if held.serves(self._clock.now()):
                    held.hastened = self._clock.now()
                self._launch(held, for_caller=True)
                if held.flight is None:
                    return
            await held.flight.done.wait()

    def _plan_for_caller(self, held: HeldGrant) -> Plan | None:
        """None also where a living token was brought forward a short while ago (law 5)."""
        now = self._clock.now()
        if self._haste_left(held, now) > 0:
            return None
        return self._allowed(held, held.plan(now, for_caller=True), now)

    def _haste_left(self, held: HeldGrant, now: Moment) -> float:
        """Seconds until a living token may be brought forward again; 0 or less: now."""
        token = held.serves(now)
        if token is None or held.hastened is None:
            return 0.0
        lifetime = held.settings.pace.lifetime if token.lifetime is None else token.lifetime
        return lifetime / HASTE + seconds_until(held.hastened, now)

    def _allowed(self, held: HeldGrant, plan: Plan | None, now: Moment) -> Plan | None:
        """The plan, unless something stands in its way that no time mends by itself."""
        if plan is None or self.stopping:
            return None
        if held.ability(now).spends(plan.operation) and (held.unstored or not self.store.adopted):
            return None
        return plan

    # -- single flight

    def renew(self, name: str) -> None:
        """What is due of the grant, if it still is: the refresher calls this."""
        held = self.grants.get(name)
        if held is not None and held.flight is None:
            self._launch(held, for_caller=False)

    def _launch(self, held: HeldGrant, *, for_caller: bool) -> None:
        now = self._clock.now()
        plan = self._allowed(held, held.plan(now, for_caller=for_caller), now)
        if plan is None or plan.delay > 0:
            self.reschedule(held)
            return
        provider = held.provider
        if not for_caller and provider.busy >= provider.settings.concurrency:
            provider.queue.append(held.name)
            return
        provider.busy += 1
        held.flight = Flight(plan.operation)
        self.schedule.set(held.name, None)
        self._nursery.start_soon(self._fly, held, held.flight, plan, name=f"{plan.operation} {held.name}")

    async def _fly(self, held: HeldGrant, flight: Flight, plan: Plan) -> None:
        try:
            if plan.operation is Operation.REVOKE:
                await self._exchanger.tell_revoked(held)
            else:
                await self._exchange(held, plan)
        except Exception:
            self.audit.bug("an exchange ended in a fault of brokerd's own", grant=held.name)
            await self._exchanger.fail(held, "a fault of brokerd's own; its log says more")
        finally:
            held.flight = None
            held.provider.busy -= 1
            flight.done.set()
            self._after_flight(held)

    async def _exchange(self, held: HeldGrant, plan: Plan) -> None:
        """An exchange, and those that have to follow it at once; each is stored before the next begins."""
        for _ in range(STEPS_MOST):
            outcome = await self._exchanger.exchange(held, plan)
            if not isinstance(outcome, Issued | Rejected) or held.serves(self._clock.now()):
                return
            held.attempted = None  # what follows is part of the same errand
            now = self._clock.now()
            following = self._allowed(held, held.plan(now, for_caller=True), now)
            if following is None or following.delay > 0:
                return
            plan = following

    async def landed(self) -> None:
        """Until no exchange is under way."""
        while flight := next((held.flight for held in self.grants.values() if held.flight), None):
            await flight.done.wait()

    def _after_flight(self, held: HeldGrant) -> None:
        provider = held.provider
        while provider.queue and provider.busy < provider.settings.concurrency and not self.stopping:
            self.renew(provider.queue.popleft())
        self.announce(held)
        if provider.take_reopened():
            for each in self.grants.values():
                if each.provider is provider:
                    self.reschedule(each)

    def announce(self, held: HeldGrant) -> None:
        """The grant has changed: its next renewal is set, its watchers are told, what is unstored is mended."""
        if self.grants.get(held.name) is held:
            self.reschedule(held)
            self.tell_watchers(held.name)
        if held.unstored and not self._mending:
            self._mending = True
            self._nursery.start_soon(self._mend, name="mend the store")

    def tell_watchers(self, name: str) -> None:
        for tell in tuple(self._watchers.get(name, ())):
            tell(name)

    def now(self) -> Moment:
        return self._clock.now()

    def reschedule(self, held: HeldGrant, *, after: float = 0.0) -> None:
        """Set when the refresher is to look at the grant next, `after` seconds from now at the earliest."""
        now = self._clock.now()
        plan = held.plan(now, for_caller=False)
        if plan is None and held.flight is None and not held.blocked:
            self._note_dead_end(held, now)
        plan = self._allowed(held, plan, now)
        at = None if plan is None or held.flight is not None else now.boot + max(plan.delay, after)
        self.schedule.set(held.name, at)
        self.rescheduled.set()

    def _note_dead_end(self, held: HeldGrant, now: Moment) -> None:
        """A grant that has nothing left to get a token with needs a login, and says so before its token ends."""
        record = held.record
        if record.state not in (State.READY, State.RETRYING) or held.plan(now, for_caller=True) is not None:
            return
        words = "its refresh token has expired" if record.refresh_token else "it has no refresh token yet"
        held.record = records.lacks_login(record, words)

    async def _mend(self) -> None:
        """Store what is in memory only, as soon as the store can be written again (law 2)."""
        delay = MEND_FIRST
        while unstored := [held for held in self.grants.values() if held.unstored]:
            self.metrics.store_failures.inc()
            await trio.sleep(delay)
            delay = min(2 * delay, MEND_LONGEST)
            async with trio.open_nursery() as nursery:
                for held in unstored:
                    nursery.start_soon(held.change, self.store, _unchanged)
            for held in unstored:
                if not held.unstored:
                    self.audit.said("stored at last", grant=held.name)
                    self.reschedule(held)
        self._mending = False

    # -- revoking and giving

    async def revoke(self, name: str, *, wait: float = 10.0) -> Revocation:
        """Revocation is final and durable (law 10): from here on nothing is served; then it is written; then the
        provider is told, as often as it takes. Waits for that for `wait` seconds at most."""
        held = self.held(name)
        held.stopped = True
        try:
            await held.change(self.store, lambda record: records.revoked(record, self._clock.now()))
        finally:
            held.stopped = False
        stored = not held.unstored
        self.audit.said("revoked", grant=name, stored=stored)
        supported = self._can_tell(held)
        self.announce(held)
        with trio.move_on_after(wait):
            while held.record.doomed:
                if held.flight is None:
                    self._launch(held, for_caller=False)
                if held.flight is None:
                    break
                await held.flight.done.wait()
                if held.record.failures:
                    break
        return _revocation(held.record, stored, supported)

    def _can_tell(self, held: HeldGrant) -> bool:
        now = self._clock.now()
        for token in held.record.doomed:
            exchange = held.settings.provider.dialect.revoke(held.doomed_view(now), token)
            if exchange is not None:
                exchange.close()
                return True
        return not held.record.doomed

    async def import_token(self, name: str, refresh_token: Secret) -> int:
        """Give the grant a refresh token that was got elsewhere; the new generation. It is tried at once."""
        held = self.held(name)
        if not held.ability(self._clock.now()).renew:
            words = f"{name}: its provider has no refresh tokens, so there is nothing to import"
            raise Failure(Code.BAD_REQUEST, words, name)
        if held.blocked:
            raise self.failure(held)
        token = Token(refresh_token)
        jitter = self._entropy.fraction()
        await held.change(self.store, lambda record: records.granted(record, token, self._clock.now(), jitter))
        held.attempted = None
        self.audit.said("refresh token imported", grant=name, generation=held.record.generation)
        self.announce(held)
        return held.record.generation

    async def forget(self, name: str) -> int:
        """Delete the records of a grant that is no longer configured, or whose record cannot be opened."""
        held = self.grants.get(name)
        if held is not None and not held.damaged:
            words = f"{name} is in the configuration; take it out there and reload first, or: brokerctl revoke {name}"
            raise Failure(Code.BAD_REQUEST, words, name)
        try:
            number = await self.store.forget(name)
        except StoreError as error:
            raise Failure(Code.UNAVAILABLE, str(error), name, 5.0) from None
        if not number:
            raise unknown(name)
        if held is not None:
            held.begin_anew()
            self.announce(held)
        self.audit.said("forgotten", grant=name, records=number)
        return number

    async def adopt(self) -> bool:
        """Let a store that was restored or copied to this machine spend again (law 15)."""
        if self.store.adopted:
            return False
        try:
            await self.store.adopt()
        except StoreError as error:
            raise Failure(Code.UNAVAILABLE, str(error), retry_after=5.0) from None
        for held in self.grants.values():
            self.reschedule(held)
        self.audit.said("store adopted")
        return True

    # -- looking

    def watch(self, name: str, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the name at every change of the grant. It must not block."""
        self._watchers.setdefault(name, set()).add(tell)

    def unwatch(self, name: str, tell: Callable[[str], None]) -> None:
        watchers = self._watchers.get(name, set())
        watchers.discard(tell)
        if not watchers:
            self._watchers.pop(name, None)

    def status(self, name: str) -> dict[str, object]:
        """One grant as `status` shows it (docs/protocol.md). No secrets are in it."""
        held, now = self.held(name), self._clock.now()
        record = held.record
        token = held.serves(now)
        refresh = record.refresh_token
        at = self.schedule.at(name)
        return {
            "name": name,
            "provider": held.provider.name,
            "state": str(State.MISCONFIGURED if held.blocked else record.state),
            "issued_at": wall_time(token.issued, now) if token else None,
            "expires_at": self.expires_at(token) if token else None,
            "next_renewal_at": round(now.wall + max(0.0, at - now.boot), 2) if at is not None else None,
            "refresh_expires_at": wall_time(refresh.expires, now) if refresh and refresh.expires else None,
            "generation": record.generation,
            "renewals": record.renewals,
            "failures": record.failures,
            "interrupted": wall_time(record.interrupted, now) if record.interrupted else None,
            "unstored": held.unstored,
            "last_error": held.blocked or record.last_error,
            "pending_revocations": len(record.doomed),
        }


def _check_min_ttl(held: HeldGrant, min_ttl: float) -> None:
    token = held.record.access_token
    if token is not None and token.lifetime is not None and min_ttl > token.lifetime / 2:
        half = f"{token.lifetime / 2:g} s, half of the token's lifetime"
        raise Failure(Code.BAD_REQUEST, f"min_ttl: expected at most {half}, found {min_ttl:g}", held.name)


def _unchanged(record: Record) -> Record:
    return record


def _revocation(record: Record, stored: bool, supported: bool) -> Revocation:
    durable = "" if stored else "it could NOT be stored and ends with this daemon unless the disk comes back; "
    if not supported:
        words = "the provider has no revocation: tokens already handed out live until they expire"
        return Revocation(stored, "unsupported", durable + words)
    if record.doomed:
        error = f" ({record.last_error})" if record.last_error else ""
        return Revocation(stored, "pending", f"{durable}the provider will be told as often as it takes{error}")
    return Revocation(stored, "told", f"{durable}the provider was told of every token that was alive")
