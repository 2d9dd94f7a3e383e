# The use cases: get, refresh, revoke, import, forget, adopt, status, watch. Who may use them is decided before.
# It decides without awaiting, then lets the I/O happen, then looks again. When and how a grant's exchange goes is
# flights.py's and exchanger.py's matter, what is in the configuration reload.py's to bring in.
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from brokerd.audit import Audit
from brokerd.core import record as records
from brokerd.core import variants
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until, wall_time
from brokerd.core.oddities import notes
from brokerd.core.outcome import Cause, Outcome, RetryLater, Token, Tokens
from brokerd.core.ports import Clock, Entropy, StoreError
from brokerd.core.record import AccessToken, usable
from brokerd.core.revocation import Revocation, revocation, revoked
from brokerd.core.scope import cut_scope, is_cut
from brokerd.core.secret import Secret
from brokerd.core.verification import ACCESS, REFRESH, Verification, verification
from brokerd.core.wanted import Wanted
from brokerd.exchanger import Exchanger
from brokerd.flights import Flights
from brokerd.flights import Store as FlightStore
from brokerd.held import HeldGrant
from brokerd.logins import Logins
from brokerd.metrics import Metrics
from brokerd.telling import spare
from brokerd.variety import Refusal

EVERY = "*"  # no grant has this name
STOPPED = "brokerd is stopping; try again when it is back"
SHOWN_SCOPE = 1_024  # characters of a scope in a grant's status
LOCKED = "brokerd is locked; an operator unlocks it: brokerctl unlock"
UNSERVED = ("issued_at", "expires_at", "next_renewal_at")  # of a grant's status, while it is locked


class Store(FlightStore, Protocol):
    """What the broker needs of the store. `trouble`: what is wrong with it, in words; times are Unix seconds."""

    trouble: str | None
    since: float | None
    resealing_since: float | None  # everything is being sealed anew under another data key

    async def forget(self, grant: str, fingerprint: str | None = None) -> int: ...

    async def adopt(self) -> None: ...


class Broker:
    """Everything that can be done with grants. Exchanges run in `nursery`, the daemon's."""

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
        self.flights = Flights(nursery, store, clock, exchanger, audit, metrics, self.tell_watchers)
        self.logins = Logins(nursery, self.flights, clock, entropy, exchanger, audit)
        self.store = store
        self.audit = audit
        self.metrics = metrics
        self._clock = clock
        self._entropy = entropy
        self._exchanger = exchanger
        self._watchers: dict[str, set[Callable[[str], None]]] = {}
        self.locked = False  # nothing is served; `_remembered` has each grant's status, as far as it was ever known
        self._remembered: dict[str, dict[str, object]] = {}

    @property
    def grants(self) -> dict[str, HeldGrant]:
        return self.flights.grants

    # -- fetching

    def cached(
        self, name: str, min_ttl: float = 0.0, refused: bytes | None = None, wanted: Wanted | None = None
    ) -> AccessToken | None:
        """The living token of a grant, or its variant that is wanted, with more than `min_ttl` seconds to live: no
        thread, no disk, no lock (DESIGN.md 2). `refused`: the SHA-256 of a token that does not count. Raises Failure
        for a `min_ttl` that is too long, and for a variant that is never to be had."""
        held = self.flights.grants.get(name)
        return None if held is None else self._found(held, min_ttl, refused, wanted)

    def _found(
        self, held: HeldGrant, min_ttl: float, refused: bytes | None, wanted: Wanted | None
    ) -> AccessToken | None:
        now = self._clock.now()
        if wanted is not None:
            return self._variant(held, min_ttl, refused, wanted, now)
        if min_ttl:
            _check_min_ttl(held, held.record.access_token, min_ttl)
        token = held.serves(now, min_ttl)
        return None if token is None or token.value.has_sha256(refused) else token

    def _variant(
        self, held: HeldGrant, min_ttl: float, refused: bytes | None, wanted: Wanted, now: Moment
    ) -> AccessToken | None:
        _check_wanted(held, wanted, now)
        _check_min_ttl(held, held.serves_variant(wanted, now), min_ttl)
        token = held.serves_variant(wanted, now, min_ttl)
        if token is None or token.value.has_sha256(refused):
            return None
        before, held.record = held.record, variants.used(held.record, wanted, now)
        if held.record is not before and held.flight is None:
            self.flights.reschedule(held)
        return token

    def expires_at(self, token: AccessToken) -> float | None:
        """When the token dies, in Unix seconds as the wall clock goes now; None: nobody knows."""
        if token.lifetime is None:
            return None
        return round(wall_time(token.issued, self._clock.now()) + token.lifetime, 2)

    async def get(
        self,
        name: str,
        *,
        min_ttl: float = 0.0,
        wait: float = 10.0,
        refused: bytes | None = None,
        wanted: Wanted | None = None,
    ) -> AccessToken:
        """The token that `cached` finds, or will find: until then it waits for the grant's one exchange. Raises Failure
        within `wait` seconds."""
        held = self.held(name)
        if (token := self._found(held, min_ttl, refused, wanted)) is not None:
            self.metrics.gets_cached.inc()
            return token
        await self.flights.wait_for(held, wait, wanted)
        if self.grants.get(name) is not held:  # a reload took it away meanwhile
            raise self.absent(name)
        if (token := self._found(held, min_ttl, refused, wanted)) is None:
            self.metrics.gets_failed.inc()
            raise self.failure(held, wanted)
        self.metrics.gets_waited.inc()
        return token

    async def refresh(self, name: str, *, wait: float = 10.0) -> AccessToken:
        """A new token now, by hand. What held the grant back is let go first, but not an interruption (law 3)."""
        held = self.held(name)
        if held.record.state is not State.REVOKED and not held.blocked:
            held.credentials = None
            held.attempted = None
            held.insisted = True
            held.variety.forget()
            can_issue = held.can_issue()
            await held.change(self.store, lambda record: records.again(record, can_issue=can_issue, by_hand=True))
            self.flights.announce(held)
        before = held.record.access_token
        await self.flights.wait_for(held, wait)
        if self.grants.get(name) is not held:
            raise self.absent(name)
        token = held.serves(now := self._clock.now())
        if token is None:
            raise self.failure(held)
        if token is before:
            raise self.failure(held, lacks=self._kept_back(held, now))
        return token

    def _kept_back(self, held: HeldGrant, now: Moment) -> str:
        """Why a refresh brought nothing while the token lives."""
        since = held.hastened.get(None)
        if since is None or held.record.error or self.flights.haste_left(held, now) <= 0:
            return "was not refreshed and keeps its token"
        return f"was renewed {max(0.0, -seconds_until(since, now)):.0f} s ago"

    async def proof(
        self, name: str, method: str, url: str, *, nonce: str | None = None, wait: float = 10.0
    ) -> tuple[AccessToken, Secret]:
        """A living token and a DPoP proof for one request with it (RFC 9449 §7): the key stays here."""
        token = await self.get(name, wait=wait)
        key = self.held(name).record.proof_key
        if key is None or token.token_type.lower() != "dpop":
            words = f"{name}: its token is bound to no key; set dpop = true on the grant"
            raise Failure(Code.BAD_REQUEST, words, name)
        signer = self.held(name).provider.signer
        return token, signer.proof(key, method, url, nonce=nonce, access_token=token.value)

    def held(self, name: str) -> HeldGrant:
        """Raises Failure for a name that is not there."""
        held = self.grants.get(name)
        if held is None:
            raise self.absent(name)
        return held

    def absent(self, name: str) -> Failure:
        """Why a grant is not there."""
        return self.locked_failure() if self.locked else unknown(name)

    def locked_failure(self) -> Failure:
        return Failure(Code.LOCKED, LOCKED)

    def failure(self, held: HeldGrant, wanted: Wanted | None = None, lacks: str = "has no such token now") -> Failure:
        """Why the grant has no token to serve, or not the wanted variant, and what mends it."""
        name, record = held.name, held.record
        why = f": {record.error}" if record.error else ""
        if held.blocked:
            return Failure(Code.MISCONFIGURED, f"{name}: {held.blocked}", name)
        if held.stopped or record.state is State.REVOKED:
            words = f"{name} was revoked; to use it again: {held.login_command}"
            return Failure(Code.REVOKED, words, name)
        if self.flights.stopping:
            return Failure(Code.UNAVAILABLE, STOPPED, name, 1.0)
        if held.unstored and self.store.trouble:
            why = f": the store cannot be written: {self.store.trouble}"
        now = self._clock.now()
        plan = held.plan(now, for_caller=True, wanted=wanted)
        if not self.store.adopted and plan and held.ability(now, wanted).spends(plan.operation):
            words = f"{name}: the store was restored or copied to this machine and spends nothing: brokerctl adopt"
            return Failure(Code.UNAVAILABLE, words, name, 60.0)
        if wanted is not None and (refusal := held.variety.refusal(wanted, now)) is not None:
            return _declined(held, wanted, refusal, now)
        match record.state:
            case State.NEEDS_LOGIN:
                words = f"{name} needs a login{why}; to fix: {held.remedy}"
                return Failure(Code.NEEDS_LOGIN, words, name)
            case State.MISCONFIGURED:
                words = f"{name} is misconfigured{why}; fix it, then: brokerctl reload, or brokerctl refresh {name}"
                return Failure(Code.MISCONFIGURED, words, name)
            case _:
                if held.remedy:
                    why += f"; to log in at once: {held.remedy}"
                elif record.uncertain and plan and plan.delay > 0:
                    why += "; an interrupted exchange may have used up its refresh token, which is not risked yet"
                after = max(1.0, plan.delay if plan else 0.0, self.flights.haste_left(held, now, wanted))
                return Failure(Code.UNAVAILABLE, f"{name} {lacks}{why}", name, after)

    def tell_watchers(self, name: str) -> None:
        for tell in (*self._watchers.get(name, ()), *self._watchers.get(EVERY, ())):
            tell(name)

    def now(self) -> Moment:
        return self._clock.now()

    # -- revoking and giving

    async def revoke(self, name: str, *, local: bool = False, wait: float = 10.0) -> Revocation:
        """Revocation is final and durable (law 10): from here on nothing is served; then it is written; then the
        provider is told, as often as it takes. Waits for that for `wait` seconds at most. `local`: it is told nothing,
        also not what an earlier revocation was to tell."""
        held = self.held(name)
        if held.blocked:  # it serves nothing, and whose record it is cannot be known
            raise self.failure(held)
        held.stopped = True
        self.logins.end(name, "the grant was revoked meanwhile")
        try:
            await held.change(self.store, lambda record: revoked(record, self._clock.now(), local=local))
        finally:
            held.stopped = False
        stored, doomed = not held.unstored, held.record.doomed
        self.audit.said_at_once("revoked", **held.about, stored=stored, **({"local": True} if local else {}))
        await spare(self._exchanger, held)
        self.flights.announce(held)
        with trio.move_on_after(wait):
            while held.record.doomed:
                if held.flight is None:
                    self.flights.launch(held, for_caller=False)
                if held.flight is None:
                    break
                await held.flight.done.wait()
                if held.record.untold:
                    break
        return revocation(doomed, held.record, self._clock.now(), stored=stored)

    async def import_token(self, name: str, refresh_token: Secret) -> int:
        """Give the grant a refresh token that was got elsewhere; the new generation. It is tried at once."""
        held = self.held(name)
        if not held.ability(self._clock.now()).renew:
            words = f"{name}: its provider has no refresh tokens, so there is nothing to import"
            raise Failure(Code.BAD_REQUEST, words, name)
        if held.blocked:
            raise self.failure(held)
        tokens, jitter = Tokens(refresh_token=Token(refresh_token)), self._entropy.fraction()
        await held.change(
            self.store, lambda record: records.granted(record, tokens, self._clock.now(), jitter, record.asked)
        )
        held.attempted = None
        self.audit.said("refresh token imported", **held.about, generation=held.record.generation)
        self.flights.announce(held)
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
            self.flights.announce(held)
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
            self.flights.reschedule(held)
        self.audit.said("store adopted")
        return True

    async def trust(self, provider: str) -> list[str]:
        """Agree to what a provider's metadata names, whatever it named before: it is met anew. The grants that were
        held back by it are tried again, and named."""
        grants = [held for held in self.grants.values() if held.provider.name == provider]
        if not grants or (issuer := grants[0].provider.settings.dialect.issuer) is None:
            words = f"expected a provider with an issuer, found {provider[:40]!r}; brokerctl status shows providers"
            raise Failure(Code.BAD_REQUEST, words)
        one = grants[0].provider
        agreed = one.trust(issuer)
        try:
            await self.store.write_metadata(provider, agreed)
        except StoreError as error:
            raise Failure(Code.UNAVAILABLE, f"agreed until brokerd ends: {error}", retry_after=5.0) from None
        self.audit.said("trusted", provider=provider, issuer=issuer)
        again = [held for held in grants if held.record.state is State.MISCONFIGURED and held.flight is None]
        for held in again:
            self.look_again(held)
        return sorted(held.name for held in again)

    def look_again(self, held: HeldGrant) -> None:
        """What held the grant back may have been changed."""
        held.record, held.attempted = records.look_again(held.record, starting=False), None
        self.flights.announce(held)

    # -- locking

    async def lock(self) -> None:
        """Serve nothing from this moment on, and let go of every token when exchanges under way have ended and are
        stored (laws 2 and 3). Names and states are remembered. Raises Failure where the disk does not take them."""
        held = dict(self.grants)
        self.locked = True
        self._remember(held)
        for name in held:
            self.logins.end(name, "brokerd was locked meanwhile")
            self.tell_watchers(name)
        if not await self.flights.emptied():
            self.locked = False
            for name in held:
                self.tell_watchers(name)
            words = "the newest tokens of a grant could not be stored and would be lost; mend the store first"
            raise Failure(Code.UNAVAILABLE, f"not locked: {words}: {self.store.trouble}", retry_after=5.0)
        self._remember(held)

    def _remember(self, held: dict[str, HeldGrant]) -> None:
        self._remembered = {name: self._status(each) | dict.fromkeys(UNSERVED) for name, each in held.items()}

    def unlocked(self) -> None:
        """The grants are there again."""
        self.locked, self._remembered = False, {}
        for name in self.grants:
            self.tell_watchers(name)

    @property
    def names(self) -> Iterable[str]:
        return self._remembered if self.locked else self.grants

    # -- looking

    async def verify(self, name: str, *, wait: float = 10.0) -> Verification:
        """Ask the provider whether it agrees that the grant's tokens are active, within `wait` seconds. Whatever it
        says, nothing is changed by it."""
        held = self.held(name)
        found: dict[str, Outcome] = {}
        with trio.move_on_after(wait) as scope:
            async with self.flights.slot(held):
                now = self._clock.now()
                record, away = held.record, held.provider.breaker.wait(now)
                tokens = {ACCESS: held.serves(now), REFRESH: record.refresh_token}
                asked = {kind: token for kind, token in tokens.items() if token and usable(token, now)}
                found = dict.fromkeys(asked, RetryLater(f"it did not answer within {wait:g} s", Cause.POSTPONED))
                for kind, token in asked.items():
                    if away > 0:
                        found[kind] = RetryLater(f"it is away, and asked again in {away:.0f} s", Cause.POSTPONED)
                    else:
                        found[kind] = await self._exchanger.verify(held, token)
        if scope.cancelled_caught and not found:
            raise Failure(Code.UNAVAILABLE, f"{name}: an exchange is under way; ask again when it has ended", name, 1.0)
        return verification(name, found)

    def watch(self, name: str, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the name at every change of the grant, or of EVERY one. It must not block."""
        self._watchers.setdefault(name, set()).add(tell)

    def unwatch(self, name: str, tell: Callable[[str], None]) -> None:
        watchers = self._watchers.get(name, set())
        watchers.discard(tell)
        if not watchers:
            self._watchers.pop(name, None)

    def status(self, name: str) -> dict[str, object]:
        """One grant as `status` shows it (docs/protocol.md). No secrets are in it."""
        return self._remembered[name] if self.locked else self._status(self.held(name))

    def _status(self, held: HeldGrant) -> dict[str, object]:
        name, now = held.name, self._clock.now()
        record, token = held.record, held.serves(now)
        refresh, dialect = record.refresh_token, held.settings.provider.dialect
        at = self.flights.schedule.at(name)
        return {
            "name": name,
            "provider": held.provider.name,
            "state": str(State.MISCONFIGURED if held.blocked else record.state),
            "issued_at": wall_time(token.issued, now) if token else None,
            "expires_at": self.expires_at(token) if token else None,
            "next_renewal_at": round(now.wall + max(0.0, at - now.boot), 2) if at is not None else None,
            "scope": list(cut_scope(token.scope, SHOWN_SCOPE)) if token and token.scope is not None else None,
            "scope_dropped": _dropped(held, token),
            "refresh_expires_at": wall_time(refresh.expires, now) if refresh and refresh.expires else None,
            "generation": record.generation,
            "renewals": record.renewals,
            "failures": record.failures,
            "interrupted": wall_time(record.uncertain, now) if record.uncertain else None,
            "unstored": held.unstored,
            "last_error": held.blocked or record.error,
            "failing_since": _failing_since(held, now),
            "revoked_at": _revoked_at(held, now),
            "notes": list(notes(token, presented=dialect.presents(token.token_type))) if token else [],
            "remedy": held.remedy,
            "pending_revocations": len(record.doomed),
            "variants": sum(held.serves_variant(each.wanted, now) is not None for each in record.variants),
        }


def _failing_since(held: HeldGrant, now: Moment) -> float | None:
    record = held.record
    since = record.failing_since if record.last_error and not held.blocked else None
    return wall_time(since, now) if since else None


def _revoked_at(held: HeldGrant, now: Moment) -> float | None:
    record = held.record
    return wall_time(record.changed, now) if record.state is State.REVOKED and record.changed else None


def _dropped(held: HeldGrant, token: AccessToken | None) -> list[str]:
    """Which of the scopes that were asked for the provider left out. One that says nothing granted them all (RFC 6749
    §5.1)."""
    asked = held.settings.settings.get("scope")
    granted = token.scope if token else None
    if granted is None or is_cut(granted) or not isinstance(asked, list):
        return []
    found = frozenset(granted)
    return [each for each in asked if each not in found and not found.issuperset(each.split(","))]


def _check_min_ttl(held: HeldGrant, token: AccessToken | None, min_ttl: float) -> None:
    if token is not None and token.lifetime is not None and min_ttl > token.lifetime / 2:
        half = f"{token.lifetime / 2:g} s, half of the token's lifetime"
        raise Failure(Code.BAD_REQUEST, f"min_ttl: expected at most {half}, found {min_ttl:g}; ask for less", held.name)


def _check_wanted(held: HeldGrant, wanted: Wanted, now: Moment) -> None:
    scope = held.settings.settings.get("scope")
    if not wanted.within(scope):
        own = " ".join(map(str, scope)) if isinstance(scope, list | tuple) else ""
        words = f"{held.name}: expected a part of the grant's own scope ({own}), found {wanted}"
        raise Failure(Code.BAD_REQUEST, words, held.name)
    if (lacks := held.settings.provider.dialect.lacks(held.view(now, wanted))) is not None:
        raise Failure(Code.BAD_REQUEST, f"{held.name}: no token for {wanted}: {lacks}", held.name)


def _declined(held: HeldGrant, wanted: Wanted, refusal: Refusal, now: Moment) -> Failure:
    words = f"{held.name}: its provider gives no token for {wanted}: {refusal.reason}"
    return Failure(Code.BAD_REQUEST, words, held.name, seconds_until(refusal.until, now))
