# The use cases: get, refresh, revoke, import, forget, adopt, trust, lock, verify, status, watch. server/ has checked
# before who may use them. grant_status.py and why_no_token.py word what callers see; single_flight.py runs exchanges.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.grant_status import expires_at, grant_status
from brokerd.broker.grant_tokens import GrantTokens
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.locked_grants import LockedGrants
from brokerd.broker.logins import Logins
from brokerd.broker.planner import ExchangePlanner
from brokerd.broker.renewal_schedule import RenewalSchedule
from brokerd.broker.revocations import settle_unrevocable
from brokerd.broker.single_flight import SingleFlight
from brokerd.broker.store_repair import StoreRepair
from brokerd.broker.waiting import TokenWait
from brokerd.broker.why_no_token import check_import, check_min_ttl, check_target, no_token, not_refreshed
from brokerd.core.errors import Code, Failure, unknown
from brokerd.core.events import Event
from brokerd.core.exchange.outcomes import Cause, IssuedToken, Outcome, RetryLater, Tokens
from brokerd.core.fleet.view import Fleet
from brokerd.core.grant import attempts, downscoped, issuance
from brokerd.core.grant.record import has_newer_token
from brokerd.core.grant.revocation import Revocation, revocation, revoked
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken, usable
from brokerd.core.grant.verification import ACCESS, REFRESH, Verification, verification
from brokerd.core.ports import Clock, Entropy, Store, StoreError
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

EVERY = "*"  # watches every grant; no grant has this name
LOCKED = "brokerd is locked; an operator unlocks it: brokerctl unlock"


class TokenBroker:
    """Everything that can be done with grants. Exchanges run in `nursery`, the daemon's.

    Many attributes: it joins the parts of broker/, and each part is one attribute."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        runner: ExchangeRunner,
        events: EventLog,
        metrics: Metrics,
    ) -> None:
        changed = self.tell_watchers
        self.registry = GrantRegistry()
        self.planner = ExchangePlanner(store)
        self.schedule = RenewalSchedule(self.planner, clock, changed)
        self.repair = StoreRepair(nursery, store, self.registry, self.schedule, events, metrics)
        parts = (self.registry, self.planner, self.schedule, self.repair)
        self.single_flight = SingleFlight(nursery, *parts, runner, clock, events, changed)
        self._waiting = TokenWait(self.registry, self.planner, self.schedule, self.single_flight, clock)
        watching = (self.watch, self.unwatch, self.look_again)
        runner.tokens = GrantTokens(self.registry, self._waiting, clock, self.failure, *watching)
        self.logins = Logins(nursery, self.registry, self.single_flight, clock, entropy, runner, events)
        self.store = store
        self.fleet: Fleet | None = None  # of which the store is, set before the broker is used
        self.events = events
        self.metrics = metrics
        self._clock = clock
        self._entropy = entropy
        self._runner = runner
        self._watchers: dict[str, set[Callable[[str], None]]] = {}
        self.locked = False  # while it is, nothing is served
        self.locked_grants = LockedGrants()

    @property
    def grants(self) -> Mapping[str, LiveGrant]:
        return self.registry.grants

    @property
    def stopping(self) -> bool:
        return self.planner.stopping

    def stop(self) -> None:
        """Begin no exchange any more."""
        self.planner.stopping = True

    # -- fetching

    def cached(
        self, name: str, min_ttl: float = 0.0, refused: bytes | None = None, target: Target | None = None
    ) -> AccessToken | None:
        """The grant's living token for `target` (None: its own) that lives longer than `min_ttl` seconds. No thread, no
        disk, no lock. `refused`: the SHA-256 of a token that an API refused. Raises Failure for a `min_ttl` that is too
        long, and for a target that the grant can never have a token for."""
        if (grant := self.registry.grants.get(name)) is None:
            return None
        now = self._clock.now()
        if target is not None:
            return self._downscoped(grant, min_ttl, refused, target, now)
        if min_ttl:
            check_min_ttl(grant, grant.record.access_token, min_ttl)
        token = grant.serves(now, min_ttl)
        return None if token is None or token.value.has_sha256(refused) else token

    def _downscoped(
        self, grant: LiveGrant, min_ttl: float, refused: bytes | None, target: Target, now: Moment
    ) -> AccessToken | None:
        check_target(grant, target, now)
        check_min_ttl(grant, grant.serves_downscoped(target, now), min_ttl)
        if (token := grant.serves_downscoped(target, now, min_ttl)) is None or token.value.has_sha256(refused):
            return None
        before, grant.record = grant.record, downscoped.used(grant.record, target, now)
        if grant.record is not before and grant.running is None:
            self.schedule.plan_next(grant)
        return token

    def expires_at(self, token: AccessToken) -> float | None:
        """When the token expires, in Unix seconds by the wall clock of now; None: unknown."""
        return expires_at(token, self._clock.now())

    async def get(
        self,
        name: str,
        *,
        min_ttl: float = 0.0,
        wait: float = 10.0,
        refused: bytes | None = None,
        target: Target | None = None,
    ) -> AccessToken:
        """`wait_for_token`, then `found_token`: for those whose rights need no second check in between."""
        waited = await self.wait_for_token(name, wait, min_ttl, refused, target)
        return self.found_token(name, min_ttl, refused, target, waited=waited)

    async def wait_for_token(
        self, name: str, wait: float, min_ttl: float = 0.0, refused: bytes | None = None, target: Target | None = None
    ) -> bool:
        """If `cached` finds nothing, wait up to `wait` seconds for the grant's one exchange. Returns whether it waited.
        Raises Failure."""
        grant = self.grant(name)
        if self.cached(name, min_ttl, refused, target) is not None:
            return False
        await self._waiting.wait_for(
            grant, wait, target, lambda: self.cached(name, min_ttl, refused, target) is not None
        )
        if not self.registry.holds(grant):  # a reload removed it meanwhile
            raise self.absent(name)
        return True

    def found_token(
        self,
        name: str,
        min_ttl: float = 0.0,
        refused: bytes | None = None,
        target: Target | None = None,
        *,
        waited: bool,
        failure: Failure | None = None,
    ) -> AccessToken:
        """What there is after `wait_for_token`. Raises `failure`, if that was raised there, or another Failure."""
        if (token := self.cached(name, min_ttl, refused, target)) is None:
            self.metrics.gets_failed.inc()
            raise failure or self.failure(self.grant(name), target)
        (self.metrics.gets_waited if waited else self.metrics.gets_cached).inc()
        return token

    async def refresh(self, name: str, *, wait: float = 10.0) -> AccessToken:
        """A new token now, because a person asked. Earlier refusals are forgotten first, an interruption is not
        (law 3)."""
        grant = self.grant(name)
        if grant.record.state is not State.REVOKED and not grant.blocked:
            grant.insist()
            can_issue = grant.can_issue()
            await grant.change(self.store, lambda record: attempts.again(record, can_issue=can_issue, by_hand=True))
            self.single_flight.grant_changed(grant)
        before = grant.record
        await self._waiting.wait_for(grant, wait, has=lambda: has_newer_token(grant.record, before))
        if not self.registry.holds(grant):
            raise self.absent(name)
        if (token := grant.serves(now := self._clock.now())) is None:
            raise self.failure(grant)
        if not has_newer_token(grant.record, before):
            raise self.failure(grant, problem=not_refreshed(grant, now))
        return token

    async def proof(
        self, name: str, method: str, url: str, *, nonce: str | None = None, wait: float = 10.0
    ) -> tuple[AccessToken, Secret]:
        """A living token and a DPoP proof for one request with it (RFC 9449 §7): the key stays here."""
        token = await self.get(name, wait=wait)
        key = self.grant(name).record.proof_key
        if key is None or token.token_type.lower() != "dpop":
            words = f"{name}: its token is bound to no key; set dpop = true on the grant"
            raise Failure(Code.BAD_REQUEST, words, name)
        return token, self.grant(name).provider.signer.proof(key, method, url, nonce=nonce, access_token=token.value)

    def grant(self, name: str) -> LiveGrant:
        """Raises Failure for an unknown name."""
        grant = self.grants.get(name)
        if grant is None:
            raise self.absent(name)
        return grant

    def absent(self, name: str) -> Failure:
        """Why brokerd has no grant of that name now."""
        return self.locked_failure() if self.locked else unknown(name)

    def locked_failure(self) -> Failure:
        return Failure(Code.LOCKED, LOCKED)

    def failure(
        self, grant: LiveGrant, target: Target | None = None, problem: str = "has no token for this request now"
    ) -> Failure:
        """Why there is no token for `target` (None: the grant's own), and what to do about it."""
        return no_token(grant, target, self._clock.now(), self.store, stopping=self.stopping, problem=problem)

    def tell_watchers(self, name: str) -> None:
        for tell in (*self._watchers.get(name, ()), *self._watchers.get(EVERY, ())):
            tell(name)

    def now(self) -> Moment:
        return self._clock.now()

    # -- revoking and giving

    async def revoke(self, name: str, *, local: bool = False, wait: float = 10.0) -> Revocation:
        """Revocation is final and durable (law 10): from now on nothing is served; then it is stored; then the provider
        is told, as often as it takes. Waits at most `wait` seconds for that. `local`: the provider is not told, and
        pending revocations are dropped."""
        grant = self.grant(name)
        if grant.blocked:  # it serves nothing, and which record is its own is unknown
            raise self.failure(grant)
        grant.stopped += 1
        self.tell_watchers(name)  # before the disk is waited for
        self.logins.grant_revoked(name)
        try:
            try:
                await grant.change(self.store, lambda record: revoked(record, self._clock.now(), local=local))
            finally:
                grant.stopped -= 1
            stored, pending = not grant.unstored, grant.record.pending_revocations
            self.events.say_now(Event.REVOKED, **grant.about, stored=stored, **({"local": True} if local else {}))
            await settle_unrevocable(self._runner, grant)
        finally:  # if who asked went away before it was written, the grant goes on; else the provider is to be told
            self.single_flight.grant_changed(grant)
        with trio.move_on_after(wait):
            await self.single_flight.until_told(grant)
        return revocation(pending, grant.record, self._clock.now(), stored=stored)

    async def import_token(self, name: str, refresh_token: Secret) -> int:
        """Store a refresh token that was obtained elsewhere, and try it at once. Returns the new generation."""
        grant = self.grant(name)
        if grant.blocked:
            raise self.failure(grant)
        check_import(grant)
        tokens, jitter = Tokens(refresh_token=IssuedToken(refresh_token)), self._entropy.fraction()
        await grant.change(
            self.store, lambda record: issuance.granted(record, tokens, self._clock.now(), jitter, record.requested)
        )
        grant.attempted = None
        self.events.say(Event.IMPORTED, **grant.about, generation=grant.record.generation)
        self.single_flight.grant_changed(grant)
        return grant.record.generation

    async def forget(self, name: str) -> int:
        """Delete the records of a grant that is no longer configured, or whose record cannot be opened."""
        grant = self.grants.get(name)
        if grant is not None and not grant.damaged:
            words = f"{name} is in the configuration; remove it there and reload first, or: brokerctl revoke {name}"
            raise Failure(Code.BAD_REQUEST, words, name)
        try:
            number = await self.store.forget(name)
        except StoreError as error:
            raise Failure(Code.UNAVAILABLE, str(error), name, 5.0) from None
        if not number:
            raise unknown(name)
        if grant is not None:
            grant.start_over()
            self.single_flight.grant_changed(grant)
        self.events.say(Event.FORGOTTEN, grant=name, records=number)
        return number

    async def adopt(self) -> bool:
        """Allow exchanges again for a store that was restored or copied to this machine, or whose records somebody
        deleted in the fleet's etcd (law 15)."""
        if self.store.adopted and not self.store.misses:
            return False
        try:
            await self.store.adopt()
        except StoreError as error:
            raise Failure(Code.UNAVAILABLE, str(error), retry_after=5.0) from None
        for grant in self.grants.values():
            self.schedule.plan_next(grant)
        self.events.say(Event.STORE_ADOPTED)
        return True

    async def trust(self, provider: str) -> list[str]:
        """Accept what a provider's metadata says now, whatever it said before. Its misconfigured grants are tried
        again; returns their names."""
        grants = [grant for grant in self.grants.values() if grant.provider.name == provider]
        if not grants or (issuer := grants[0].provider.settings.dialect.issuer) is None:
            words = f"expected a provider with an issuer, found {provider[:40]!r}; to see providers: brokerctl status"
            raise Failure(Code.BAD_REQUEST, words)
        agreed = grants[0].provider.trust(issuer)
        try:
            await self.store.write_metadata(provider, agreed)
        except StoreError as error:
            words = f"accepted until brokerd ends, and not stored: {error}"
            raise Failure(Code.UNAVAILABLE, words, retry_after=5.0) from None
        self.events.say(Event.PROVIDER_TRUSTED, provider=provider, issuer=issuer)
        again = [grant for grant in grants if grant.record.state is State.MISCONFIGURED and grant.running is None]
        for grant in again:
            self.look_again(grant)
        return sorted(grant.name for grant in again)

    def look_again(self, grant: LiveGrant) -> None:
        """Try the grant again: the reason for its state may be gone."""
        grant.try_again()
        grant.attempted = None
        self.single_flight.grant_changed(grant)

    # -- locking

    async def lock(self) -> None:
        """Serve nothing from now on. When exchanges and logins under way have ended and are stored (laws 2 and 3), drop
        every token; names and errors are kept for `status`. Raises Failure if the disk cannot store a token."""
        grants = dict(self.grants)
        self.locked = True
        self.locked_grants.keep(grants, self._clock.now())
        for name in grants:
            self.logins.cancel(name, "brokerd was locked meanwhile")
            self.tell_watchers(name)
        await self.logins.until_ended()
        if not await self.single_flight.empty():
            self.locked = False
            for name in grants:
                self.tell_watchers(name)
            words = "the newest tokens of a grant could not be stored and would be lost; repair the store first"
            raise Failure(Code.UNAVAILABLE, f"not locked: {words}: {self.store.trouble}", retry_after=5.0)
        self.locked_grants.keep(grants, self._clock.now())

    def unlocked(self) -> None:
        """The grants were loaded again."""
        self.locked = False
        self.locked_grants.drop()
        for name in self.grants:
            self.tell_watchers(name)

    @property
    def names(self) -> Iterable[str]:
        return self.locked_grants.statuses if self.locked else self.grants

    # -- looking

    async def verify(self, name: str, *, wait: float = 10.0) -> Verification:
        """Ask the provider, for at most `wait` seconds, whether the grant's tokens are active. The answer changes
        nothing."""
        grant = self.grant(name)
        found: dict[str, Outcome] = {}
        with trio.move_on_after(wait) as scope:
            async with self.single_flight.reserved(grant):
                now = self._clock.now()
                record, away = grant.record, grant.provider.breaker.wait(now)
                tokens = {ACCESS: grant.serves(now), REFRESH: record.refresh_token}
                questioned = {kind: token for kind, token in tokens.items() if token and usable(token, now)}
                found = dict.fromkeys(questioned, RetryLater(f"it did not answer within {wait:g} s", Cause.POSTPONED))
                for kind, token in questioned.items():
                    if away > 0:
                        found[kind] = RetryLater(f"it is away, and asked again in {away:.0f} s", Cause.POSTPONED)
                    else:
                        found[kind] = await self._runner.verify(grant, token)
        if scope.cancelled_caught and not found:
            raise Failure(Code.UNAVAILABLE, f"{name}: an exchange is under way; ask again when it has ended", name, 1.0)
        return verification(name, found)

    def watch(self, name: str, tell: Callable[[str], None]) -> None:
        """Call `tell` with the name at every change of the grant; EVERY: of all grants. `tell` must not block."""
        self._watchers.setdefault(name, set()).add(tell)

    def unwatch(self, name: str, tell: Callable[[str], None]) -> None:
        watchers = self._watchers.get(name, set())
        watchers.discard(tell)
        if not watchers:
            self._watchers.pop(name, None)

    def status(self, name: str) -> dict[str, object]:
        """One grant as `status` shows it (docs/protocol.md). No secrets are in it."""
        return self.locked_grants.statuses[name] if self.locked else self._status(self.grant(name))

    def _status(self, grant: LiveGrant) -> dict[str, object]:
        return grant_status(grant, self._clock.now(), self.schedule.at(grant.name))
