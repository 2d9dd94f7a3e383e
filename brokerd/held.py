# A configured grant as the daemon holds it: its record, and the record's way into the store. The one place where a
# record changes. What an event does to a record is core/record.py's matter, when to cause one is broker's.
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import trio

from brokerd.config import GrantSettings
from brokerd.core import variants
from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import Declined, Issued, Outcome
from brokerd.core.ports import GenerationConflict, StoreError, StoreUnavailable
from brokerd.core.record import AccessToken, Record, RefreshToken, alive, expired, served, usable
from brokerd.core.renewal import Ability, Operation, Plan, next_by_itself, next_for_caller, variants_due
from brokerd.core.scope import is_cut
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted
from brokerd.dialects.dialect import GrantView
from brokerd.provider import Provider
from brokerd.variety import Variety

HASTENED_MOST = 64  # more than a grant has variants
CONFLICTS_MOST = 5  # with one daemon on a store there is never a second


class StoredRecord(Protocol):
    """A record as the store gives it back."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def record(self) -> Record | None: ...


class GrantStore(Protocol):
    """What a held grant needs of the store; brokerd.core.ports says what is raised."""

    async def write(self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool) -> None: ...

    async def read(self, grant: str) -> Iterable[StoredRecord]: ...


class Flight:
    """The one exchange of a grant that is under way; everybody who waits, waits for this. `wanted`: the variant that it
    is for. `held_back`: nothing was sent, since the same request failed shortly before; the record says until when."""

    __slots__ = ("done", "held_back", "operation", "wanted")

    def __init__(self, operation: Operation, wanted: Wanted | None = None) -> None:
        self.operation = operation
        self.wanted = wanted
        self.held_back = False
        self.done = trio.Event()


class HeldGrant:
    """One grant. `stored` is the generation that the store holds, None where it holds nothing; `unstored`: newer
    tokens are in memory only (law 2); `stopped`: it is being revoked, and serves nothing from that moment on (law 10);
    `blocked`: nothing can be done until an operator changes what it says; `damaged`: that is its stored record;
    `lacks_secret`: a file with one of its secrets could not be read; `insisted`: an operator says that a refused
    password is right now (law 7); `hastened`: when callers last brought a token forward, its own (None) or a
    variant's."""

    __slots__ = (
        "_lock",
        "attempted",
        "blocked",
        "credentials",
        "damaged",
        "fingerprint",
        "flight",
        "hastened",
        "insisted",
        "lacks_secret",
        "name",
        "provider",
        "record",
        "settings",
        "stopped",
        "stored",
        "unstored",
        "variety",
    )

    def __init__(self, settings: GrantSettings, provider: Provider, fingerprint: str, record: Record | None) -> None:
        self.name = settings.name
        self.settings = settings
        self.provider = provider
        self.fingerprint = fingerprint
        self.record = record or Record(settings.name, asked=settings.asked)
        self.stored = record.generation if record else None
        self.credentials: dict[str, Secret] | None = None  # read when first needed
        self.unstored = False
        self.stopped = False
        self.blocked: str | None = None
        self.damaged = False
        self.flight: Flight | None = None
        self.attempted: Moment | None = None
        self.hastened: dict[Wanted | None, Moment] = {}
        self.insisted = False
        self.lacks_secret = False
        self.variety = Variety()
        self._lock: trio.Lock | None = None

    def begin_anew(self) -> None:
        """Its record is gone from the store."""
        self.record, self.stored = Record(self.name, asked=self.settings.asked), None
        self.blocked, self.damaged = None, False

    # -- questions

    def serves(self, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
        """The token that may be handed out now."""
        if self.stopped or self.blocked:
            return None
        return served(self.record, now, min_ttl)

    def serves_variant(self, wanted: Wanted, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
        """The same for a variant."""
        if self.stopped or self.blocked:
            return None
        return variants.served(self.record, wanted, self.settings.asked, now, min_ttl)

    def hasten(self, wanted: Wanted | None, now: Moment) -> None:
        """A caller brings a living token forward."""
        self.hastened[wanted] = now
        if len(self.hastened) > HASTENED_MOST:  # of variants that have gone
            there = {None, wanted, *(each.wanted for each in self.record.variants)}
            self.hastened = {each: at for each, at in self.hastened.items() if each in there}

    @property
    def about(self) -> dict[str, str]:
        """What every line of the log that is about this grant says first."""
        return {"grant": self.name, "provider": self.provider.name}

    @property
    def remedy(self) -> str | None:
        """The command that mends the grant, where a person has to, or can before it is certain that they have to."""
        refresh = self.record.refresh_token
        is_rejected = self.record.state is State.NEEDS_LOGIN or (refresh is not None and refresh.rejected is not None)
        return self.login_command if is_rejected and not self.blocked else None

    @property
    def is_changing(self) -> bool:
        """Whether a change is on its way into the store."""
        return self._lock is not None and self._lock.locked()

    def bounded(self, delay: float, now: Moment) -> float:
        """The delay, but at most half of what is left of the served token's life."""
        token = self.serves(now)
        if token is None or token.expires is None:
            return delay
        return min(delay, seconds_until(token.expires, now) / 2)

    def note(self, wanted: Wanted | None, outcome: Outcome, now: Moment, *, password: bool) -> None:
        """What outlives an exchange in memory only: a variant that is not to be had for a while, and a `password` that
        may have been what was refused (law 7)."""
        if wanted is None:
            self.variety.doubted = self.variety.doubted and not isinstance(outcome, Issued)
        elif isinstance(outcome, Declined):
            self.variety.refuse(wanted, outcome.reason, now)
            self.variety.doubted = self.variety.doubted or password
        elif isinstance(outcome, Issued) and self.serves_variant(wanted, now) is None:
            token = outcome.tokens.access_token
            self.variety.refuse(wanted, expired(token.odd if token else None), now)

    def view(self, now: Moment, wanted: Wanted | None = None) -> GrantView:
        """What the dialect may see: living tokens only, so that a dead one is never sent (law 3)."""
        record = self.record
        access, refresh = record.access_token, record.refresh_token
        living = access if alive(access, now) else None, refresh if usable(refresh, now) else None
        return self._view(*living, wanted)

    def own(self) -> Wanted:
        """What the grant's own tokens are for, as the provider said, else as it is configured."""
        said, token = self.settings.settings, self.record.access_token
        granted = token.scope if token and not is_cut(token.scope) else None
        scope = granted or said.get("scope")
        audience, resource = (str(said[name]) if said.get(name) else None for name in ("audience", "resource"))
        return Wanted(tuple(map(str, scope)) if isinstance(scope, list | tuple) else None, audience, resource)

    def doomed_view(self, now: Moment) -> GrantView:
        """The same for a revocation: the tokens that are still to be revoked, of each kind the first that lives."""
        access = next((each.access_token for each in self.record.doomed if usable(each.access_token, now)), None)
        refresh = next((each.refresh_token for each in self.record.doomed if usable(each.refresh_token, now)), None)
        return self._view(access, refresh)

    def _view(
        self, access: AccessToken | None, refresh: RefreshToken | None, wanted: Wanted | None = None
    ) -> GrantView:
        credentials, settings = self.credentials or self._named(), self.settings.settings
        provider, key, sources = self.provider, self.record.proof_key, self.settings.credentials
        return GrantView(credentials, settings, access, refresh, provider.signer, key, provider.nonce, wanted, sources)

    def _named(self) -> dict[str, Secret]:
        """Before credentials were read it is known only that they are there."""
        return {name: source.text or Secret("") for name, source in self.settings.credentials.items()}

    def ability(self, now: Moment, wanted: Wanted | None = None) -> Ability:
        found = self.settings.provider.dialect.ability(self.view(now, wanted))
        return replace(found, asked=self.settings.asked)

    def can_issue(self) -> bool:
        """Whether tokens can be had without a refresh token and without a person."""
        return self._bare_ability().issue

    @property
    def login_command(self) -> str:
        """The command that gives the grant a new life: a login where its grant type has one."""
        ability = self._bare_ability()
        return f"brokerctl {'login' if ability.login or ability.issue else 'import'} {self.name}"

    def _bare_ability(self) -> Ability:
        bare = GrantView(self.credentials or self._named(), self.settings.settings)
        return self.settings.provider.dialect.ability(bare)

    def plan(self, now: Moment, *, for_caller: bool, wanted: Wanted | None = None) -> Plan | None:
        """What is next (core/renewal.py), not before the provider's breaker lets anything through. `wanted`: for a
        caller who wants that variant."""
        if self.blocked or self.stopped:
            return None
        record, pace = self.record, self.settings.pace
        if wanted is not None:
            found = self._for_variant(wanted, now)
        elif for_caller:
            found = next_for_caller(record, self.ability(now), pace, now, self.attempted)
        else:
            found = next_by_itself(record, self.ability(now), pace, now, self.attempted)
            for each, due in variants_due(record, self.settings.asked, pace, now):
                if (other := self._for_variant(each, now)) is not None:
                    other = replace(other, delay=max(due, other.delay))
                    found = other if found is None or other.delay < found.delay else found
        return found and replace(found, delay=max(found.delay, self.provider.breaker.wait(now)))

    def _for_variant(self, wanted: Wanted, now: Moment) -> Plan | None:
        """The exchange for a variant: where the grant is well, which its own token has to show."""
        if self.record.state not in (State.READY, State.RETRYING):
            return None
        found = next_for_caller(self.record, self.ability(now, wanted), self.settings.pace, now, None)
        if found is None or (found.operation is Operation.ISSUE and self.variety.doubted):
            return None
        return replace(found, delay=max(found.delay, self.variety.wait(wanted, now)), wanted=wanted)

    # -- changes

    async def change(
        self, store: GrantStore, step: Callable[[Record], Record | None], *, concludes: bool = False
    ) -> Record | None:
        """Apply `step` to the record, make the result durable, then let it be seen. A step that returns None moves
        nothing: it was made for another generation. Where the store cannot be written the result counts all the same,
        in memory, and `unstored` says so. `concludes`: an exchange ended with this, its journal row goes. Returns what
        became of the record, None where nothing did.

        Where somebody else wrote the store meanwhile, his record is taken over first (law 4).
        """
        if self._lock is None:
            self._lock = trio.Lock()
        async with self._lock:
            for _ in range(CONFLICTS_MOST):
                base = self.record
                if (changed := step(base)) is None:
                    return None
                try:
                    await store.write(changed, self.fingerprint, self.stored, concludes=concludes)
                except GenerationConflict:
                    try:
                        await self._take_over(store)
                        continue
                    except StoreError:  # the disk went away between the two
                        self.unstored = True
                except StoreError:
                    self.unstored = True
                else:
                    self.stored, self.unstored = changed.generation, False
                # What only memory knows may have moved during the write (an exchange began): the step is made on that.
                self.record = changed if self.record is base else step(self.record) or self.record
                return self.record
        raise RuntimeError(f"{self.name}: the store holds another record each time it is read")

    async def settled(self) -> None:
        """Until no change is on its way into the store, and what came of it is seen."""
        if self._lock is not None:
            async with self._lock:
                pass

    async def confirm(self, store: GrantStore, generation: int) -> bool:
        """Whether the store still holds the generation that was used (law 4); if not, what it holds is taken over."""
        if self.stored is None or self.unstored:
            return True
        try:
            async with self._lock or trio.Lock():
                theirs = await self._read(store)
                if theirs is None or theirs.generation == generation:
                    return True
                self._adopt(theirs)
                return False
        except StoreUnavailable:
            return True

    async def _take_over(self, store: GrantStore) -> None:
        """What is newer than ours. The rest is ours of before: a commit that failed may have come to lie there."""
        theirs = await self._read(store)
        if theirs is not None and theirs.generation > self.record.generation:
            self._adopt(theirs)
        else:
            self.stored = theirs.generation if theirs else None

    def _adopt(self, theirs: Record) -> None:
        self.record, self.stored = theirs, theirs.generation

    async def _read(self, store: GrantStore) -> Record | None:
        for found in await store.read(self.name):
            if found.fingerprint == self.fingerprint:
                return found.record
        return None
