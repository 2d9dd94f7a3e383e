# One exchange of a grant, from its journal to its record (laws 2, 3, 4, 7, 12). It knows nothing of callers, waiters
# and schedules: broker decides when, this does it.
from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Protocol

import trio

from brokerd.audit import Audit
from brokerd.config import GrantSettings, ProviderSettings
from brokerd.core import record as records
from brokerd.core.backoff import LONGEST, RECHECK, doubted_delay, retry_delay
from brokerd.core.breaker import Breaker
from brokerd.core.conclusions import Ending, Sent, Terms, Verdict, concluded, verdict
from brokerd.core.exchange import Exchange, Request
from brokerd.core.grant import State
from brokerd.core.metadata import Metadata
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.oddities import believed
from brokerd.core.outcome import (
    NAMES,
    Cause,
    Done,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Unsupported,
)
from brokerd.core.passwords import LOCKABLE, account_of, digest, lasting
from brokerd.core.ports import Clock, Entropy, StoreUnavailable
from brokerd.core.record import AccessToken, Record, RefreshToken, usable
from brokerd.core.renewal import Operation, Plan, risked_after
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted
from brokerd.held import GrantStore, HeldGrant
from brokerd.metrics import Metrics
from brokerd.provider import OVERTAKEN, Conversation, Journal, Person, Stands, Subjects

REFUSED = "the provider refused this password before; it is not sent again until it changes"
DOUBTED = "the provider may have refused this password before; it is sent again later"

ReadSecrets = Callable[[GrantSettings], Awaitable[dict[str, Secret]]]


class SecretsUnreadable(Exception):
    """The credentials of a grant could not be read; the text says which and why. `in_file`: one that is in a file."""

    def __init__(self, message: str, *, in_file: bool = False) -> None:
        super().__init__(message)
        self.in_file = in_file


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
            await self._conclude(held, Ending(plan, generation, Misconfigured(str(error)), self.clock.now()))
            return None
        self._bind(held)
        if plan.operation is not Operation.ISSUE or LOCKABLE not in used:
            return await self._attempt(held, plan, generation, used, subjects)
        async with held.provider.turn(account_of(used)):
            return await self._attempt(held, plan, generation, used, subjects)

    async def _attempt(
        self, held: HeldGrant, plan: Plan, generation: int, used: dict[str, Secret], subjects: Subjects | None
    ) -> Outcome | None:
        """The exchange with these credentials, unless what it would send is held back (law 7)."""
        now = self.clock.now()
        if held.credentials is not used or not _stands(plan, held, generation, now):
            return None  # while the credentials were read, the grant went another way
        sent = self._sent(held, plan, now)
        insisted = held.insisted
        if insisted and sent.password is not None:  # its turn may come after the refresh token's
            held.provider.passwords.trust(sent.password)
            sent, held.insisted = replace(sent, earlier=None), False
        if not insisted and (wait := _held_back(held, sent, now)) > 0:
            await held.change(self.store, lambda record: _not_sent(record, held, plan, sent, wait, now))
            if held.flight is not None:
                held.flight.held_back = True
            return None
        spends = held.ability(now, plan.wanted).spends(plan.operation)
        with trio.CancelScope() as scope:
            ended = await self._sending(held, plan, generation, sent, scope, subjects)
            ending = Ending(plan, generation, ended.outcome, ended.at, ended.status, spends, sent)
            if isinstance(ended.outcome, Misconfigured) and await self._changed(held, used):
                now = self.clock.now()
                if _stands(plan, held, generation, now):
                    _learn(held, ending, now, self.entropy.fraction())
                    sent = self._sent(held, plan, now)
                    if _held_back(held, sent, now) <= 0:  # what has changed may be beside the password
                        ended = await self._sending(held, plan, generation, sent, scope, subjects)
                        ending = Ending(plan, generation, ended.outcome, ended.at, ended.status, spends, sent)
            held.insisted = held.insisted and not isinstance(ended.outcome, Issued)
            return ended.outcome if await self._conclude(held, ending) else None
        return None

    async def _sending(
        self,
        held: HeldGrant,
        plan: Plan,
        generation: int,
        sent: Sent,
        scope: trio.CancelScope,
        subjects: Subjects | None,
    ) -> Conversation:
        """The conversation. A password that has not proved right is noted first: where nobody lives to hear the answer,
        it is not sent again at once (law 7)."""
        now, used, settings = self.clock.now(), held.credentials, held.settings
        if held.record.state is not State.RENEWING:
            held.record = _begun(held.record)
        if sent.password is not None and sent.password != held.record.proven:
            doubt = sent.doubt(now, doubted_delay(sent.times, self.entropy.fraction()))
            held.provider.passwords.doubt(held.name, doubt)

            def noted(record: Record) -> Record | None:
                return records.doubted(record, doubt) if record.generation == generation else None

            await held.change(self.store, noted)
            known = await self._still(held, settings, used)
            now = self.clock.now()
            if not known:  # without them an empty password would be sent
                return Conversation(RetryLater("the configuration was read again meanwhile", Cause.POSTPONED), now)
            if not _stands(plan, held, generation, now):
                return Conversation(RetryLater(OVERTAKEN, Cause.POSTPONED), now)
            if held.unstored:
                return Conversation(RetryLater("the store cannot be written", Cause.POSTPONED), now)
        if plan.wanted is None:
            held.attempted = now
        else:
            held.variety.begin(now)
        return await self._converse(held, plan, now, scope, subjects)

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
            plan, outcome = Plan(Operation.RENEW, 0.0), RetryLater(reason, Cause.FAILED)
            await self._conclude(held, Ending(plan, held.record.generation, outcome, self.clock.now(), spends=True))

    def _sent(self, held: HeldGrant, plan: Plan, now: Moment) -> Sent:
        """What the exchange sends is known again by all that its request is made of: credentials, settings of grant and
        provider, and the URL; not by the request, for one that is signed never comes twice. A password is known by
        whose it is alone, whatever is asked for with it."""
        settings, exchange, credentials = held.settings, _exchange(held, plan, now), held.credentials or {}
        locks = plan.operation is Operation.ISSUE and LOCKABLE in credentials  # then a code of the minute is no change
        found = hashlib.sha256(digest(lasting(credentials) if locks else credentials))
        found.update(repr((plan.operation, sorted(settings.settings.items()), *_way(settings.provider))).encode())
        with contextlib.suppress(StopIteration), contextlib.closing(exchange):
            if isinstance(step := next(exchange), Request):
                found.update(step.url.encode())
        if locks:
            account = account_of(credentials)
            return Sent(found.digest(), account, held.provider.passwords.earlier(held.name, account, found.digest()))
        return Sent(found.digest())

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
        return replace(ended, outcome=believed(ended.outcome, held.settings.pace))

    # -- what an outcome does to the record

    async def _conclude(self, held: HeldGrant, ending: Ending) -> bool:
        """The outcome moves the grant, durably (core/conclusions.py). Of a rejection it is asked first whether it still
        speaks of the newest generation (law 4): if not, it is not believed."""
        plan, outcome, settings = ending.plan, ending.outcome, held.settings
        now = self.clock.now()  # of the answer: a slow disk makes no first rejection a last one
        if isinstance(outcome, Rejected) and not await held.confirm(self.store, ending.generation):
            self._audit.said("the grant was renewed from elsewhere meanwhile; that result is used", **held.about)
            return False
        terms = Terms(settings.asked, held.own(), held.can_issue(), settings.pace)
        jitter = self.entropy.fraction()
        _learn(held, ending, now, jitter)
        step = functools.partial(concluded, ending=ending, terms=terms, now=now, jitter=jitter)
        changed = await held.change(self.store, step, concludes=True)
        held.note(plan.wanted, outcome, now, password=ending.sent is not None and ending.sent.password is not None)
        if isinstance(outcome, Rejected) and changed is not None and changed.last_error:
            outcome = Rejected(changed.last_error)  # status and log say it in one voice
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
            **({"interrupted": True} if record.uncertain else {}),
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
            try:
                held.credentials = await self._read_secrets(held.settings)
            except SecretsUnreadable as error:
                held.lacks_secret = error.in_file
                raise
            held.lacks_secret = False
        return held.credentials

    async def _still(self, held: HeldGrant, settings: GrantSettings, used: dict[str, Secret] | None) -> bool:
        """Whether these are what would be sent. A reload, or a refresh by hand, drops credentials, to be read again."""
        try:
            return held.settings == settings and await self.read_credentials(held, again=False) == used
        except SecretsUnreadable:
            return False

    async def _changed(self, held: HeldGrant, used: dict[str, Secret]) -> bool:
        """Before Misconfigured is believed, secret files and commands are read again (law 7)."""
        try:
            return await self.read_credentials(held, again=True) != used
        except SecretsUnreadable:
            return False


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


def _held_back(held: HeldGrant, sent: Sent, now: Moment) -> float:
    """Seconds for which this is not sent (law 7): 0 or less: it may go."""
    if sent.password is not None:
        return held.provider.passwords.wait(held.name, sent.password, sent.request, now)
    record = held.record
    if record.refused_until is None or record.refused != sent.request:
        return 0.0
    # Longer only by a Retry-After, which `retry` holds; and one of an earlier release was not made by these rules.
    return min(seconds_until(record.refused_until, now), LONGEST)


def _not_sent(record: Record, held: HeldGrant, plan: Plan, sent: Sent, wait: float, now: Moment) -> Record:
    """The record after a try that was held back. A password is looked at again every few minutes: its bytes may change,
    and another grant's try may show that it is right."""
    if sent.password is None:
        return replace(records.put_off(record, now, wait), refused_until=now.after(wait))
    delay = min(wait, RECHECK)
    if wait == inf:
        record = replace(record, refused=sent.password, refused_until=None)
    if plan.early:  # what was to come ahead of need costs nothing
        return replace(record, rotation_retry=now.after(delay))
    if held.ability(now, plan.wanted).renew and usable(record.refresh_token, now):
        return records.skipped(record, now, retry_delay(record.failures + 1, None, 0.0))
    if record.state is State.MISCONFIGURED:
        return records.put_off(record, now, delay)
    words = REFUSED if wait == inf else DOUBTED
    return records.refused(records.begun(record), words, now, delay, record.refused, record.refused_until)


def _learn(held: HeldGrant, ending: Ending, now: Moment, jitter: float) -> None:
    """What the provider's other grants with the same password have to know."""
    passwords, sent = held.provider.passwords, ending.sent
    if sent is None or sent.password is None:
        return
    match verdict(ending):
        case Verdict.REFUSED:
            passwords.refuse(sent.password)
        case Verdict.DOUBTED:
            passwords.doubt(held.name, sent.doubt(now, doubted_delay(sent.times, jitter)))
        case Verdict.TAKEN:
            passwords.trust(sent.password)
        case Verdict.NOTHING:
            passwords.leave(held.name, sent.password, sent.earlier)


def _exchange(held: HeldGrant, plan: Plan, now: Moment) -> Exchange:
    view, dialect = held.view(now, plan.wanted), held.settings.provider.dialect
    return dialect.renew(view) if plan.operation is Operation.RENEW else dialect.issue(view)


def _way(provider: ProviderSettings) -> tuple[object, ...]:
    """What of a provider's settings a request is made of besides its URL."""
    return provider.ca_file, provider.cert_file, provider.key_file, provider.proxy and provider.proxy.reveal()
