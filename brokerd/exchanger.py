# One exchange of a grant, from its journal to its record (laws 2, 3, 4, 7, 12). It knows nothing of callers, waiters
# and schedules: broker decides when, this does it.
from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from brokerd.audit import Audit
from brokerd.config import GrantSettings
from brokerd.core import record as records
from brokerd.core import revocation as revocations
from brokerd.core import variants
from brokerd.core.backoff import RECHECK, refused_delay, retry_delay
from brokerd.core.breaker import Breaker
from brokerd.core.exchange import Exchange, Request
from brokerd.core.grant import State
from brokerd.core.metadata import Metadata
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import (
    NAMES,
    Cause,
    Declined,
    Done,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Tokens,
    Unsupported,
)
from brokerd.core.ports import Clock, Entropy, StoreUnavailable
from brokerd.core.record import AccessToken, Record, RefreshToken, alive, usable
from brokerd.core.renewal import Operation, Plan, risked_after
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted
from brokerd.held import GrantStore, HeldGrant
from brokerd.metrics import Metrics
from brokerd.provider import OVERTAKEN, Conversation, Journal, Person, Stands, Subjects

LOCKABLE = "password"  # the credential whose repetition locks accounts (law 7)

ReadSecrets = Callable[[GrantSettings], Awaitable[dict[str, Secret]]]


class SecretsUnreadable(Exception):
    """The credentials of a grant could not be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an exchange sends, to be known again where it is refused. It lies in the record, sealed. `until_changed`:
    then it is never sent again as it is; otherwise hourly, then daily (law 7)."""

    digest: bytes
    until_changed: bool


class ExchangeStore(GrantStore, Protocol):
    """What an exchange needs of the store."""

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment) -> None: ...

    async def write_breaker(self, provider: str, breaker: Breaker) -> None: ...

    async def write_metadata(self, provider: str, metadata: Metadata) -> None: ...


class Exchanger:
    """Runs exchanges. `read_secrets` raises SecretsUnreadable."""

    def __init__(
        self,
        store: ExchangeStore,
        clock: Clock,
        entropy: Entropy,
        read_secrets: ReadSecrets,
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self.clock = clock
        self.entropy = entropy
        self._read_secrets = read_secrets
        self._audit = audit
        self._metrics = metrics

    async def exchange(self, held: HeldGrant, plan: Plan, subjects: Subjects | None = None) -> Outcome | None:
        """One exchange for a token. None where nothing follows from it: it was not begun because a refused password has
        not changed (law 7), or its end was overtaken."""
        generation, settings = held.record.generation, held.settings
        needs = settings.provider.dialect.needs(settings.settings)
        doubted = held.record.state is State.MISCONFIGURED or bool(needs.rereads & settings.credentials.keys())
        try:
            used = await self.read_credentials(held, again=doubted)
        except SecretsUnreadable as error:
            held.record = _begun(held.record)
            await self._conclude(held, plan, generation, Misconfigured(str(error)), self.clock.now(), spends=False)
            return None
        self._bind(held)
        if plan.operation is not Operation.ISSUE or LOCKABLE not in used:
            return await self._attempt(held, plan, generation, used, subjects)
        async with held.provider.turn(_digest(used)):
            return await self._attempt(held, plan, generation, used, subjects)

    async def _attempt(
        self, held: HeldGrant, plan: Plan, generation: int, used: dict[str, Secret], subjects: Subjects | None
    ) -> Outcome | None:
        """The exchange with these credentials, unless what it would send was refused before (law 7)."""
        now = self.clock.now()
        if held.credentials is not used or not _stands(plan, held, generation, now):
            return None  # while the credentials were read, the grant went another way
        sent = self._sent(held, plan, now)
        if held.insisted:
            held.insisted = False
            held.provider.refused.discard(sent.digest)
        elif sent.until_changed and sent.digest in held.provider.refused:
            await held.change(self.store, lambda record: _still_refused(record, plan, sent.digest, now))
            return None
        elif (
            (until := held.record.refused_until)
            and sent.digest == held.record.refused
            and seconds_until(until, now) > 0
        ):
            await held.change(self.store, lambda record: records.put_off(record, now, seconds_until(until, now)))
            return None
        spends = held.ability(now, plan.wanted).spends(plan.operation)
        held.record = _begun(held.record)
        if plan.wanted is None:
            held.attempted = now
        else:
            held.variety.begin(now)
        with trio.CancelScope() as scope:
            ended = await self._converse(held, plan, now, scope, subjects)
            if isinstance(ended.outcome, Misconfigured) and await self._changed(held, used):
                now = self.clock.now()
                if _stands(plan, held, generation, now):
                    sent = self._sent(held, plan, now)
                    ended = await self._converse(held, plan, now, scope, subjects)
            believed = await self._conclude(held, plan, generation, ended.outcome, ended.at, sent, spends=spends)
        return ended.outcome if believed else None

    async def login(self, held: HeldGrant, person: Person, hold: Journal) -> Conversation:
        """A person's login, to its tokens; nothing of the grant changes yet. `hold` is awaited before a request leaves
        whose answer must not be lost. Raises SecretsUnreadable."""
        await self.read_credentials(held, again=held.flight is None)
        self._bind(held)
        exchange = held.settings.provider.dialect.login(held.view(self.clock.now()))
        return await self.run(held, exchange, hold, person=person)

    async def fail(self, held: HeldGrant, reason: str) -> None:
        """A fault of our own ended an exchange: it counts as a failure, and as an interruption if it may have spent."""
        if held.record.state is State.RENEWING:
            outcome = RetryLater(reason, Cause.FAILED)
            plan = Plan(Operation.RENEW, 0.0)
            await self._conclude(held, plan, held.record.generation, outcome, self.clock.now(), spends=True)

    def _sent(self, held: HeldGrant, plan: Plan, now: Moment) -> Sent:
        """A password is known again by its bytes, whatever is asked for with it; other credentials with the settings
        and the URL they went to, for these may be what a person mends. Not by the request: one that is signed never
        comes twice."""
        credentials = held.credentials or {}
        if plan.operation is Operation.ISSUE and LOCKABLE in credentials:
            return Sent(_digest(credentials), until_changed=True)
        found, exchange = hashlib.sha256(_digest(credentials)), _exchange(held, plan, now)
        found.update(repr((plan.operation, sorted(held.settings.settings.items()))).encode())
        with contextlib.suppress(StopIteration), contextlib.closing(exchange):
            if isinstance(step := next(exchange), Request):
                found.update(step.url.encode())
        return Sent(found.digest(), until_changed=False)

    async def _converse(
        self, held: HeldGrant, plan: Plan, now: Moment, scope: trio.CancelScope, subjects: Subjects | None
    ) -> Conversation:
        async def journal() -> None:
            scope.shield = True  # what is journalled is seen to its end, whoever goes away (law 3)
            await self.store.begin(held.name, held.fingerprint, generation, self.clock.now())
            await held.settled()  # what was written with it may be durable before memory knows
            if risked_after(held.record, held.settings.pace, self.clock.now()) > 0:
                raise StoreUnavailable("the provider's grace for a used refresh token ran out while this one waited")
            if not stands():  # what is in hand may be dead by now
                raise StoreUnavailable(OVERTAKEN)

        def stands() -> bool:
            return not held.stopped and held.record.generation == generation

        generation = held.record.generation
        return await self.run(held, _exchange(held, plan, now), journal, subjects, stands=stands)

    async def run(
        self,
        held: HeldGrant,
        exchange: Exchange,
        journal: Journal | None = None,
        subjects: Subjects | None = None,
        person: Person | None = None,
        stands: Stands | None = None,
    ) -> Conversation:
        provider = held.provider
        shut_until, metadata = provider.breaker.shut_until, provider.metadata
        ended = await provider.converse(exchange, journal, subjects, person, stands)
        try:
            if provider.breaker.shut_until != shut_until:
                await self.store.write_breaker(provider.name, provider.breaker)
            if provider.metadata is not None and provider.metadata is not metadata:
                await self.store.write_metadata(provider.name, provider.metadata)
        except StoreUnavailable:
            self._metrics.store_failures.inc()
        return ended

    # -- what an outcome does to the record

    async def _conclude(
        self,
        held: HeldGrant,
        plan: Plan,
        generation: int,
        outcome: Outcome,
        at: Moment,
        sent: Sent | None = None,
        *,
        spends: bool,
    ) -> bool:
        """The outcome moves the grant, durably. Outcomes of an older generation move nothing, and of a rejection it is
        asked first whether it still speaks of the newest (law 4): if not, it is not believed. Without `sent` nothing
        was, and what was refused before stays so."""
        if isinstance(outcome, Rejected) and not await held.confirm(self.store, generation):
            self._audit.said("the grant was renewed from elsewhere meanwhile; that result is used", **held.about)
            return False
        interrupted = held.record.interrupted
        if isinstance(outcome, Rejected) and plan.operation is Operation.RENEW and interrupted is not None:
            outcome = Rejected(f"{outcome.reason} ({_interrupted(interrupted)})")  # status and log say it in one voice
        now, jitter = self.clock.now(), self.entropy.fraction()

        def step(record: Record) -> Record | None:
            if record.generation != generation:
                late = isinstance(outcome, Issued) and record.state is State.REVOKED
                return (
                    revocations.came_late(record, outcome.tokens, at) if late and isinstance(outcome, Issued) else None
                )
            match outcome:
                case Issued(tokens) if plan.wanted is not None:
                    renewed, asked = plan.operation is Operation.RENEW, held.settings.asked
                    own = held.own()
                    changed = variants.issued(record, plan.wanted, tokens, at, jitter, asked, own, renewed=renewed)
                    return _unless_dead(changed, record, records.new_access(tokens, at, jitter), now, jitter)
                case Declined():
                    return variants.declined(record, at, spent=spends)
                case Issued(tokens):
                    # A renewal keeps the scope that the refresh token has: where it can be issued anew, it will be.
                    keeps = plan.operation is Operation.RENEW and held.can_issue()
                    changed = _issued(record, tokens, at, now, jitter, record.asked if keeps else held.settings.asked)
                    # A password that was refused is none the better for a renewal.
                    if plan.operation is Operation.RENEW and record.refused_until is None:
                        changed = replace(changed, refused=record.refused)
                    if plan.early and tokens.refresh_token is None:  # this is no way to a new refresh token
                        return replace(changed, rotation_retry=now.after(refused_delay(1, jitter)))
                    return changed
                case RetryLater(reason, Cause.SILENT, _) if sent and sent.until_changed and not plan.early:
                    # It may be the password, or an account that is locked for longer each time it is sent (law 7).
                    delay = refused_delay(record.failures + 1, jitter)
                    return records.refused(record, reason, now, delay, sent.digest, now.after(delay))
                case RetryLater(reason, cause, after) if not plan.early:
                    delay = retry_delay(record.failures + 1, after, jitter)
                    return records.failed(record, reason, now, delay, interrupted=spends and cause.touched, since=at)
                case RetryLater(reason, cause, after):
                    failures = record.rotation_failures + 1
                    silent = cause is Cause.SILENT and sent is not None and sent.until_changed
                    delay = refused_delay(failures, jitter) if silent else retry_delay(failures, after, jitter)
                    touched, waits = spends and cause.touched, after is not None
                    return records.rotation_failed(
                        record, reason, now, delay, interrupted=touched, since=at, asked_to_wait=waits
                    )
                case Rejected(reason) if plan.operation is Operation.RENEW:
                    return records.rejected(record, reason, now, can_issue=held.can_issue())
                case Rejected(reason) | Misconfigured(reason) if plan.early:
                    delay = refused_delay(record.rotation_failures + 1, jitter)
                    password = sent.digest if sent and sent.until_changed else None
                    return records.rotation_failed(record, reason, now, delay, interrupted=False, password=password)
                case Rejected(reason) | Misconfigured(reason):
                    delay = refused_delay(record.failures + 1, jitter)
                    if sent is None:
                        return records.refused(record, reason, now, delay, record.refused, record.refused_until)
                    if sent.until_changed:
                        return records.refused(record, reason, now, RECHECK, sent.digest)
                    return records.refused(record, reason, now, delay, sent.digest, now.after(delay))
                case Done() | Unsupported():
                    raise AssertionError("an exchange for a token is never merely done")

        if sent and sent.until_changed and isinstance(outcome, Rejected | Misconfigured):
            held.provider.refused.add(sent.digest)
        await held.change(self.store, functools.partial(_dated, step, now), concludes=True)
        held.note(plan.wanted, outcome, now, password=sent is not None and sent.until_changed)
        self.report(held, plan.operation, outcome, plan.wanted)
        return True

    async def verify(self, held: HeldGrant, token: AccessToken | RefreshToken) -> Outcome:
        """Ask the provider whether the token is active. That does not use it up, and nothing is changed by it."""
        try:
            await self.read_credentials(held, again=False)
        except SecretsUnreadable as error:
            return Misconfigured(str(error))
        exchange = held.settings.provider.dialect.verify(held.view(self.clock.now()), token)
        if exchange is None:
            return Unsupported("the provider has no introspection endpoint")
        outcome = (await self.run(held, exchange)).outcome
        self.report(held, Operation.VERIFY, outcome)
        return outcome

    def report(self, held: HeldGrant, operation: Operation, outcome: Outcome, wanted: Wanted | None = None) -> None:
        """Metrics and the audit log learn of it, last (DESIGN.md 2)."""
        name = NAMES[type(outcome)]
        self._metrics.exchanges.labels(held.provider.name, str(operation), name).inc()
        details = {} if isinstance(outcome, Issued | Done) else {"reason": outcome.reason}
        record = held.record
        self._audit.exchanged(
            held.name,
            held.provider.name,
            str(operation),
            name,
            state=str(record.state),
            generation=record.generation,
            token=record.access_token if isinstance(outcome, Issued) and not wanted else None,
            **({"interrupted": True} if record.interrupted else {}),
            **({"unstored": True} if held.unstored else {}),
            **({"remedy": held.remedy} if held.remedy else {}),
            **({"variant": str(wanted)} if wanted else {}),
            **details,
        )

    # -- credentials

    def _bind(self, held: HeldGrant) -> None:
        """Make the key that tokens are to be bound to. It is stored with them, in one piece."""
        if held.settings.provider.dialect.needs(held.settings.settings).proof_key and held.record.proof_key is None:
            held.record = replace(held.record, proof_key=held.provider.signer.new_key())

    async def read_credentials(self, held: HeldGrant, *, again: bool) -> dict[str, Secret]:
        """The grant's credentials, read when first needed and when somebody doubts them."""
        if held.credentials is None or again:
            held.credentials = await self._read_secrets(held.settings)
        return held.credentials

    async def _changed(self, held: HeldGrant, used: dict[str, Secret]) -> bool:
        """Before Misconfigured is believed, secret files and commands are read again (law 7)."""
        try:
            return await self.read_credentials(held, again=True) != used
        except SecretsUnreadable:
            return False


def _dated(step: Callable[[Record], Record | None], now: Moment, record: Record) -> Record | None:
    """What the step makes of the record, with the time since when the grant fails."""
    changed = step(record)
    return None if changed is None else records.dated(record, changed, now)


def _stands(plan: Plan, held: HeldGrant, generation: int, now: Moment) -> bool:
    """Whether the plan can still be carried out: the grant was neither revoked nor given a new token since, and what
    would be sent lives (a machine may have been suspended)."""
    if held.stopped or held.record.generation != generation or held.record.state is State.REVOKED:
        return False
    ability = held.ability(now, plan.wanted)
    if plan.operation is Operation.RENEW:
        return ability.renew and usable(held.record.refresh_token, now)
    return ability.issue


def _begun(record: Record) -> Record:
    """The record with its exchange begun; one that was misconfigured is let try again first."""
    if record.state is State.MISCONFIGURED:
        record = records.again(record, can_issue=True, by_hand=False)
    return records.begun(record)


def _still_refused(record: Record, plan: Plan, password: bytes, now: Moment) -> Record:
    """The password is the one that was refused: it is not sent again (law 7)."""
    if plan.early:  # what was to come ahead of need costs nothing
        return replace(record, rotation_retry=now.after(RECHECK), refused=password, refused_until=None)
    if record.state is State.MISCONFIGURED:
        return replace(records.put_off(record, now, RECHECK), refused=password, refused_until=None)
    words = "the provider refused this password before; it is not sent again until it changes"
    return records.refused(records.begun(record), words, now, RECHECK, password)


def _issued(record: Record, tokens: Tokens, at: Moment, now: Moment, jitter: float, asked: str) -> Record:
    changed = records.issued(record, tokens, at, jitter, asked)
    return _unless_dead(changed, record, changed.access_token if tokens.access_token else None, now, jitter)


def _unless_dead(changed: Record, before: Record, token: AccessToken | None, now: Moment, jitter: float) -> Record:
    """A token that came without any life left is a failure, so that nobody asks for the next one at once."""
    if token is None or alive(token, now):
        return changed
    failures = before.failures + 1
    return records.came_dead(changed, failures, now, retry_delay(failures, None, jitter))


def _exchange(held: HeldGrant, plan: Plan, now: Moment) -> Exchange:
    view, dialect = held.view(now, plan.wanted), held.settings.provider.dialect
    return dialect.renew(view) if plan.operation is Operation.RENEW else dialect.issue(view)


def _digest(credentials: dict[str, Secret]) -> bytes:
    """What a refused password is known again by, whoever of the provider's grants has it."""
    found = hashlib.sha256()
    for name, value in sorted(credentials.items()):
        found.update(f"\0{name}\0{value.reveal()}".encode())
    return found.digest()


def _interrupted(since: Moment) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(since.wall))
    return f"an exchange was interrupted at {when} UTC and may have used it up"
