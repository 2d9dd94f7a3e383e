# A configured grant at run time: its record, and how a new one reaches the store. A record changes only here. What an
# event does to a record is in core/grant; when it happens is decided by the other modules of broker/.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import InitVar, dataclass, field, replace

import trio

from brokerd.broker.downscoped import DownscopedRequests
from brokerd.broker.provider import Provider
from brokerd.config.settings import GrantSettings
from brokerd.core.exchange.outcomes import Declined, Issued, Outcome
from brokerd.core.grant import attempts, downscoped
from brokerd.core.grant import record as records
from brokerd.core.grant.history import Ended, with_row
from brokerd.core.grant.record import Record, served
from brokerd.core.grant.renewal import Ability, Operation, Plan, downscoped_due, next_by_itself, next_for_caller
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken, RefreshToken, alive, already_expired, usable
from brokerd.core.ports import ChangedElsewhere, GenerationConflict, Store, StoreError, StoreUnavailable
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment, seconds_until
from brokerd.dialects.dialect import Dialect, GrantView
from brokerd.telemetry.tracing import Trail

EARLY_MOST = 64  # early renewals that are remembered; more than a grant has downscoped tokens
EARLY_SHARE = 1 / 3  # of a lifetime: a caller can have a living token renewed at most once in that time (law 5)
CONFLICTS_MOST = 20  # with one daemon on a store there is never a second; hosts of a fleet may be many at once


@dataclass(eq=False, slots=True)
class RunningExchange:
    """The one exchange of a grant that is under way; all that wait for the grant wait for `done`. `target`: what a
    downscoped token is for, None: the grant's own token. `postponed`: nothing was sent, because the same request failed
    shortly before, or the grant changed before it left. `elsewhere`: it waits for another host's."""

    operation: Operation
    provider: Provider
    trail: Trail
    target: Target | None = None
    postponed: bool = False
    elsewhere: bool = False
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(eq=False, repr=False, slots=True)
class LiveGrant:
    """One grant. `stored` is the generation that the store holds, None where it holds nothing; `unstored`: newer tokens
    are in memory only (law 2); `stopped`: so many revocations of it are being written, and it serves nothing (law 10);
    `blocked`: nothing can be done until an operator changes what it says; `damaged`: its stored record cannot be
    opened; `lacks_secret`: a file with one of its secrets could not be read; `insisted`: an operator says that a
    refused password is right now (law 7); `attempted`: when its last exchange began; `history`: how its last exchanges
    ended, packed (core/grant/history.py).

    Many attributes: each is a fact about the same grant that only memory knows, and all change together."""

    settings: GrantSettings
    provider: Provider
    fingerprint: str
    loaded: InitVar[Record | None]
    name: str = field(init=False)
    record: Record = field(init=False)
    stored: int | None = field(init=False)
    credentials: dict[str, Secret] | None = None  # read when first needed
    unstored: bool = False
    stopped: int = 0
    blocked: str | None = None
    damaged: bool = False
    running: RunningExchange | None = None
    attempted: Moment | None = None
    insisted: bool = False
    lacks_secret: bool = False
    history: bytes = b""
    _downscoped: DownscopedRequests | None = None  # these two are made when they are needed: most grants never do
    _early_renewals: dict[Target | None, Moment] | None = None
    _lock: trio.Lock | None = None

    def __post_init__(self, loaded: Record | None) -> None:
        self.name = self.settings.name
        if loaded is not None and self.in_credentials:  # what was stored may have been deleted meanwhile
            loaded = replace(loaded, access_token=None)
        self.record = loaded or Record(self.name, requested=self.settings.requested)
        self.stored = loaded.generation if loaded else None

    def start_over(self) -> None:
        """Its record is gone from the store."""
        self.record, self.stored = Record(self.name, requested=self.settings.requested), None
        self.blocked, self.damaged, self.history = None, False, b""

    def configure(self, settings: GrantSettings, provider: Provider) -> None:
        """The configuration was read again. Credentials are read when they are next needed."""
        self.settings, self.provider, self.credentials = settings, provider, None

    def try_again(self) -> bool:
        """What stopped the grant may be gone: its next exchange need not wait. False: nothing stopped it."""
        before, self.record = self.record, attempts.configuration_read(self.record, starting=False)
        if self.record is not before:
            self.attempted = None
        return self.record is not before

    def insist(self) -> None:
        """A person asks for a new token: read credentials again, and forget earlier refusals."""
        self.credentials, self.attempted, self.insisted = None, None, True
        if self._downscoped is not None:
            self._downscoped.forget()
        if self.record.last_error is not None:  # the last exchange renewed nothing
            self.forget_early_renewal(None)

    # -- questions

    def serves(self, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
        """The token that may be handed out now."""
        if self.stopped or self.blocked:
            return None
        return served(self.record, now, min_ttl)

    def serves_downscoped(self, target: Target, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
        """The downscoped token that may be handed out now."""
        if self.stopped or self.blocked:
            return None
        return downscoped.served(self.record, target, self.settings.requested, now, min_ttl)

    def serves_target(self, target: Target | None, now: Moment) -> AccessToken | None:
        """The token for `target`; None is the grant's own."""
        return self.serves(now) if target is None else self.serves_downscoped(target, now)

    def early_renewal_wait(self, target: Target | None, now: Moment) -> float:
        """Seconds until a caller may have a living token renewed again; 0 or less: now (law 5)."""
        token = self.serves_target(target, now)
        if token is None or not self._early_renewals or (since := self._early_renewals.get(target)) is None:
            return 0.0
        lifetime = self.settings.pace.lifetime if token.lifetime is None else token.lifetime
        return lifetime * EARLY_SHARE + seconds_until(since, now)

    @property
    def early_renewal_at(self) -> Moment | None:
        """When a caller last had the grant's own token renewed while it was alive."""
        return self._early_renewals.get(None) if self._early_renewals else None

    def note_early_renewal(self, target: Target | None, now: Moment) -> None:
        """A caller has a living token renewed."""
        if self._early_renewals is None:
            self._early_renewals = {}
        self._early_renewals[target] = now
        if len(self._early_renewals) > EARLY_MOST:  # of downscoped tokens that have gone
            there = {None, target, *(each.target for each in self.record.downscoped)}
            self._early_renewals = {each: at for each, at in self._early_renewals.items() if each in there}

    def forget_early_renewal(self, target: Target | None) -> None:
        if self._early_renewals:
            self._early_renewals.pop(target, None)

    @property
    def downscoped(self) -> DownscopedRequests:
        """How often downscoped tokens were asked for."""
        if self._downscoped is None:
            self._downscoped = DownscopedRequests()
        return self._downscoped

    @property
    def dialect(self) -> Dialect:
        """How the grant's provider is spoken to."""
        return self.settings.provider.dialect

    @property
    def in_credentials(self) -> bool:
        """Whether its token is itself a credential."""
        return self.dialect.needs(self.settings.settings).in_credentials

    @property
    def about(self) -> dict[str, str]:
        """The fields that every log line about this grant begins with."""
        return {"grant": self.name, "provider": self.provider.name}

    @property
    def remedy(self) -> str | None:
        """The command to fix the grant, where a person has to log in, or can before it is certain that they have to."""
        refresh = self.record.refresh_token
        is_rejected = self.record.state is State.NEEDS_LOGIN or (refresh is not None and refresh.rejected is not None)
        return self.login_command if is_rejected and not self.blocked else None

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way, a change is being stored, or the newest tokens are not stored."""
        return self.running is not None or self.unstored or self.is_changing

    @property
    def is_changing(self) -> bool:
        """Whether a change is being stored, or the record compared with the store's."""
        return self._lock is not None

    def bounded(self, delay: float, now: Moment) -> float:
        """The delay, but at most half of what is left of the served token's life."""
        token = self.serves(now)
        if token is None or token.expires is None:
            return delay
        return min(delay, seconds_until(token.expires, now) / 2)

    def note(self, target: Target | None, outcome: Outcome, now: Moment, *, password: bool) -> None:
        """Remember, in memory only, that a downscoped token was refused, and that a `password` may have been the reason
        (law 7)."""
        if target is None:
            if self._downscoped is not None and isinstance(outcome, Issued):
                self._downscoped.doubted = False
        elif isinstance(outcome, Declined):
            self.downscoped.refuse(target, outcome.reason, now)
            self.downscoped.doubted = self.downscoped.doubted or password
        elif isinstance(outcome, Issued) and self.serves_downscoped(target, now) is None:
            token = outcome.tokens.access_token
            self.downscoped.refuse(target, already_expired(token.lifetime_warning if token else None), now)

    def view(self, now: Moment, target: Target | None = None) -> GrantView:
        """What the dialect may see: living tokens only, so that a dead one is never sent (law 3)."""
        record = self.record
        access, refresh = record.access_token, record.refresh_token
        living = access if alive(access, now) else None, refresh if usable(refresh, now) else None
        return self._view(*living, target)

    def revocation_view(self, now: Moment) -> GrantView:
        """The same for a revocation: the tokens that are still to be revoked, of each kind the first that lives."""
        pending = self.record.pending_revocations
        access = next((each.access_token for each in pending if usable(each.access_token, now)), None)
        refresh = next((each.refresh_token for each in pending if usable(each.refresh_token, now)), None)
        return self._view(access, refresh)

    def _view(
        self, access: AccessToken | None, refresh: RefreshToken | None, target: Target | None = None
    ) -> GrantView:
        credentials, settings = self.credentials or self._named(), self.settings.settings
        provider, key, sources = self.provider, self.record.proof_key, self.settings.credentials
        fields = self.record.access_token.fields if self.record.access_token else {}
        return GrantView(
            credentials, settings, access, refresh, provider.signer, key, provider.nonce, target, sources, fields
        )

    def _named(self) -> dict[str, Secret]:
        """Before credentials were read it is known only that they are there."""
        return {name: source.text or Secret("") for name, source in self.settings.credentials.items()}

    def ability(self, now: Moment, target: Target | None = None) -> Ability:
        found = self.dialect.ability(self.view(now, target))
        unread = self.credentials is None if self.in_credentials else None
        return replace(found, requested=self.settings.requested, unread=unread)

    def can_issue(self) -> bool:
        """Whether tokens can be had without a refresh token and without a person."""
        return self._bare_ability().issue

    @property
    def login_command(self) -> str:
        """The command that gives the grant new tokens: a login where its grant type has one."""
        ability = self._bare_ability()
        return f"brokerctl {'login' if ability.login or ability.issue else 'import'} {self.name}"

    def _bare_ability(self) -> Ability:
        bare = GrantView(self.credentials or self._named(), self.settings.settings)
        return self.dialect.ability(bare)

    def plan(self, now: Moment, *, for_caller: bool, target: Target | None = None) -> Plan | None:
        """The next operation (core/grant/renewal.py), not before the provider's breaker permits one. `target`: for a
        caller that wants that downscoped token."""
        if self.blocked or self.stopped:
            return None
        record, pace = self.record, self.settings.pace
        if target is not None:
            found = self._plan_downscoped(target, now)
        elif for_caller:
            found = next_for_caller(record, self.ability(now), pace, now, self.attempted)
        else:
            found = next_by_itself(record, self.ability(now), pace, now, self.attempted)
            for each, due in downscoped_due(record, self.settings.requested, pace, now):
                if (other := self._plan_downscoped(each, now)) is not None:
                    other = replace(other, delay=max(due, other.delay))
                    found = other if found is None or other.delay < found.delay else found
        return found and replace(found, delay=max(found.delay, self.provider.breaker.wait(now)))

    def _plan_downscoped(self, target: Target, now: Moment) -> Plan | None:
        """The exchange for a downscoped token. None while the grant itself fails: its own token is tried first."""
        if self.record.state not in (State.READY, State.RETRYING):
            return None
        found = next_for_caller(self.record, self.ability(now, target), self.settings.pace, now, None)
        if found is None or (found.operation is Operation.ISSUE and self.downscoped.doubted):
            return None
        return replace(found, delay=max(found.delay, self.downscoped.wait(target, now)), target=target)

    # -- changes

    def note_dead_end(self, now: Moment) -> bool:
        """A grant that has nothing left to get a token with needs a login, and says so before its token ends. Whether
        that is new."""
        record = self.record
        if self.running is not None or self.blocked or self.stopped:  # nothing is planned, whatever is left
            return False
        if record.state not in (State.READY, State.RETRYING) or self.plan(now, for_caller=True) is not None:
            return False
        words = "its refresh token has expired" if record.refresh_token else "it has no refresh token yet"
        self.record = records.with_failing_since(record, attempts.needs_login_now(record, words), now)
        return True

    async def change(
        self,
        store: Store,
        step: Callable[[Record], Record | None],
        ended: Ended | None = None,
        *,
        concludes: bool = False,
    ) -> Record | None:
        """Apply `step` to the record, make the result durable, then let others see it. A step that returns None changes
        nothing: it was made for another generation. If the store cannot be written, the result holds in memory, and
        `unstored` says so. `ended`: the exchange that this is the end of, for the history. `concludes`: its journal row
        is deleted. Returns the new record; None: nothing has changed. If another process wrote the store meanwhile, its
        record is taken over first (law 4)."""
        async with self._locked():
            for _ in range(CONFLICTS_MOST):
                base = self.record
                if (changed := step(base)) is None:
                    self.note_ended(ended)
                    return None
                before, history = self.history, self.history if ended is None else with_row(self.history, ended)
                try:
                    await store.write(changed, self.fingerprint, self.stored, concludes=concludes, history=history)
                except GenerationConflict as conflict:
                    try:
                        await self._take_over(store, elsewhere=isinstance(conflict, ChangedElsewhere))
                        continue
                    except StoreError:  # the disk went away between the two
                        self.unstored = True
                except StoreError:
                    self.unstored = True
                else:
                    self.stored, self.unstored = changed.generation, False
                # The record in memory may have changed during the write (an exchange began): the step is applied to it.
                self.record = changed if self.record is base else step(self.record) or self.record
                if self.history is before:
                    self.history = history
                else:
                    self.note_ended(ended)
                return self.record
        self.record, self.unstored = step(self.record) or self.record, True  # others are faster: it is stored later
        self.note_ended(ended)
        return self.record

    def note_ended(self, ended: Ended | None) -> None:
        """An exchange has ended. The store learns of it when the record is written next."""
        if ended is not None:
            self.history = with_row(self.history, ended)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Hold the grant's lock, which is there while it is held: a hundred thousand grants need none."""
        lock = self._lock = self._lock or trio.Lock()
        try:
            async with lock:
                yield
        finally:
            if self._lock is lock and not lock.locked():
                self._lock = None

    async def settled(self) -> None:
        """Wait until no change is being stored."""
        async with self._locked() if self.is_changing else nullcontext():
            pass

    async def confirm(self, store: Store, generation: int) -> bool:
        """Whether the store still holds the generation that was used (law 4); if not, what it holds is taken over."""
        if self.stored is None or self.unstored:
            return True
        try:
            async with self._locked():
                theirs = await self._read(store)
                if theirs is None or theirs.generation == generation:
                    return True
                self.take(theirs)
                return False
        except StoreUnavailable:
            return True

    async def _take_over(self, store: Store, *, elsewhere: bool) -> None:
        """Take over the store's record if it is newer. Else it is an older one of ours: what seemed not to be written
        may have been. `elsewhere`: it is another host's."""
        theirs = await self._read(store)
        if theirs is not None and theirs.generation >= self.record.generation + (not elsewhere):
            self.take(theirs)
        else:
            self.stored = theirs.generation if theirs else None

    def take(self, theirs: Record) -> None:
        """The record of another process, or another host. An exchange that is under way here goes on."""
        if self.record.state is State.RENEWING and theirs.generation == self.record.generation:
            theirs = attempts.begun(theirs) if theirs.state in (State.READY, State.RETRYING) else theirs
        self.record, self.stored = records.best_dated(theirs, self.record), theirs.generation

    async def _read(self, store: Store) -> Record | None:
        mine = [row for row in await store.read(self.name) if row.fingerprint == self.fingerprint]
        if mine and mine[0].damage:
            raise StoreUnavailable(f"its stored record cannot be opened: {mine[0].damage}")
        return mine[0].record if mine else None
