# Runs one exchange of a grant, from its journal to its record (laws 2, 3, 4, 7, 12). single_flight.py decides when.
# What is decided about the record is in core/grant: repeated_request.py before sending, conclusions.py afterwards.
from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import trio

from brokerd.broker import provider_memory
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import (
    NO_CONTEXT,
    OVERTAKEN,
    Conversation,
    ExchangeContext,
    Journal,
    Person,
    Provider,
)
from brokerd.broker.send_guard import SendGuard, TokensOfGrants
from brokerd.config.settings import GrantSettings, ProviderSettings
from brokerd.core.events import Event
from brokerd.core.exchange.implausible_values import believed
from brokerd.core.exchange.outcomes import (
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
from brokerd.core.exchange.steps import Exchange, Request
from brokerd.core.grant import history
from brokerd.core.grant.advice import after
from brokerd.core.grant.conclusions import Ending, Sent, Terms, Verdict, concluded, verdict
from brokerd.core.grant.passwords import LOCKABLE, account_of, digest, lasting
from brokerd.core.grant.renewal import Operation, Plan
from brokerd.core.grant.repeated_request import begun, not_sent, password_noted, wait_before
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target, own_target
from brokerd.core.grant.tokens import AccessToken, RefreshToken, usable
from brokerd.core.ports import Clock, Entropy, Store, StoreUnavailable
from brokerd.core.repeated_failures import Failing, known_to_fail
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.timing.backoff import doubted_delay
from brokerd.core.timing.moment import Moment
from brokerd.telemetry import steps, tracing
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

REFUSES_WHO_ASKS = (401, 403)  # statuses of an answer that may be about a token that was sent as a credential
NONE_REFUSED: Mapping[str, Secret] = {}
ReadSecrets = Callable[[Mapping[str, SecretSource]], Awaitable[dict[str, Secret]]]


class SecretsUnreadable(Exception):
    """The credentials of a grant could not be read; the text says which and why. `in_file`: one that is in a file.
    `will_pass`: nothing is wrong with the grant itself."""

    def __init__(self, message: str, *, in_file: bool = False, will_pass: bool = False) -> None:
        super().__init__(message)
        self.in_file = in_file
        self.will_pass = will_pass

    @property
    def outcome(self) -> Outcome:
        return RetryLater(str(self), Cause.POSTPONED) if self.will_pass else Misconfigured(str(self))


@dataclass(eq=False, repr=False)
class ExchangeRunner:
    """Runs exchanges. `read_secrets` raises SecretsUnreadable. `tokens`: set by the broker, whose grants they are."""

    store: Store
    clock: Clock
    entropy: Entropy
    _read_secrets: ReadSecrets
    _events: EventLog
    _metrics: Metrics
    tokens: TokensOfGrants = field(init=False)

    async def exchange(self, grant: LiveGrant, plan: Plan) -> Outcome | None:
        """One exchange for a token. None: nothing follows from it. It was not begun because a refused password has not
        changed (law 7), or the grant changed in another way meanwhile."""
        generation, doubted = grant.record.generation, grant.record.state is State.MISCONFIGURED
        try:
            used = await self.read_credentials(grant, again=doubted or grant.in_credentials)
        except SecretsUnreadable as error:
            grant.record = begun(grant.record)
            await self._conclude(grant, Ending(plan, generation, error.outcome, self.clock.now()))
            return None
        self._bind(grant)
        if plan.operation is not Operation.ISSUE or LOCKABLE not in used:
            return await self._attempt(grant, plan, generation, used)
        async with grant.provider.turn(account_of(used)):
            return await self._attempt(grant, plan, generation, used)

    async def _attempt(self, grant: LiveGrant, plan: Plan, generation: int, used: dict[str, Secret]) -> Outcome | None:
        """The exchange with these credentials, unless the same request failed shortly before (law 7)."""
        now = self.clock.now()
        if grant.credentials is not used or not _stands(plan, grant, generation, now):
            _begin_again(grant)  # while the credentials were read, the grant went another way
            return None
        sent = self._sent(grant, plan, now)
        insisted = grant.insisted
        if insisted and sent.password is not None:  # its turn may come after the refresh token's
            grant.provider.passwords.trust(sent.password)
            sent, grant.insisted = replace(sent, earlier=None), False
        if not insisted and (wait := _held_back(grant, sent, now)) > 0:
            tracing.note(lambda: steps.held(wait))
            renews = grant.ability(now, plan.target).renew
            step = functools.partial(not_sent, plan=plan, sent=sent, wait=wait, now=now, renews=renews)
            await grant.change(self.store, step)
            _begin_again(grant)
            return None
        sends_stored = grant.ability(now, plan.target).sends_stored(plan.operation)
        with trio.CancelScope() as scope:
            guard = SendGuard(self.store, self.clock, grant, generation, scope, self.tokens)
            context = ExchangeContext(guard.journal, guard.stands, guard.last_look)
            is_free = sends_stored or await guard.claim()
            ended = await self._sending(grant, plan, generation, sent, context) if is_free else None
            if ended is None or guard.held:
                await guard.wait_for_other()
                return None
            ending = _ending(plan, generation, ended, sends_stored, sent)
            if isinstance(ended.outcome, Misconfigured) and await self._changed(grant, used, ended.status):
                now = self.clock.now()
                if _stands(plan, grant, generation, now):
                    _learn(grant, ending, now, self.entropy.fraction())
                    sent = self._sent(grant, plan, now)
                    if _held_back(grant, sent, now) <= 0:  # what has changed may be beside the password
                        ended = await self._sending(grant, plan, generation, sent, context)
                        ending = _ending(plan, generation, ended, sends_stored, sent)
            # A password that was on its way when an operator insisted has its answer now, and they learn of it.
            if isinstance(ended.outcome, Issued) or verdict(ending) is not Verdict.NOTHING:
                grant.insisted = False
            return ended.outcome if await self._conclude(grant, ending) else None
        return None

    async def _sending(
        self, grant: LiveGrant, plan: Plan, generation: int, sent: Sent, context: ExchangeContext
    ) -> Conversation:
        """The conversation. A password that has not proved right, or was doubted since, is noted in the record before
        it is sent: if brokerd ends before the answer comes, it is not sent again at once (law 7)."""
        now, used, settings = self.clock.now(), grant.credentials, grant.settings
        grant.record = grant.record if grant.record.state is State.RENEWING else begun(grant.record)
        proven = sent.password == grant.record.proven_password and sent.earlier is None
        if sent.password is not None and not proven:
            doubt = sent.doubt(now, doubted_delay(sent.times, self.entropy.fraction()))
            grant.provider.passwords.doubt(grant.name, doubt)
            await grant.change(self.store, functools.partial(password_noted, generation=generation, doubt=doubt))
            known = await self._still(grant, settings, used)
            now = self.clock.now()
            if not known:  # without them an empty password would be sent
                return Conversation(RetryLater("the configuration was read again meanwhile", Cause.POSTPONED), now)
            if not _stands(plan, grant, generation, now):
                return Conversation(RetryLater(OVERTAKEN, Cause.POSTPONED), now)
            if grant.unstored:
                return Conversation(RetryLater("the store cannot be written", Cause.POSTPONED), now)
        if plan.target is None:
            grant.attempted = now
        else:
            grant.downscoped.begin(now)
        return await self.run(grant, _exchange(grant, plan, now), context)

    async def login(self, grant: LiveGrant, person: Person, hold: Journal) -> Conversation:
        """A person's login, until its tokens are there; nothing about the grant changes yet. `hold` is awaited before
        a request leaves whose answer must not be lost. Raises SecretsUnreadable."""
        await self.read_credentials(grant, again=grant.running is None)
        self._bind(grant)
        exchange = grant.dialect.login(grant.view(self.clock.now()))
        ended = await self.run(grant, exchange, ExchangeContext(hold, person=person))
        grant.note_ended(None if isinstance(ended.outcome, Issued) else self.row(Operation.LOGIN, ended))
        return ended

    async def fail(self, grant: LiveGrant, reason: str) -> None:
        """A fault of brokerd's own ended an exchange. It counts as a failure and as an interruption, because a stored
        token may have been sent."""
        if grant.record.state is State.RENEWING:
            plan, outcome = Plan(Operation.RENEW, 0.0), RetryLater(reason, Cause.FAILED)
            ending = Ending(plan, grant.record.generation, outcome, self.clock.now(), sends_stored=True)
            await self._conclude(grant, ending)

    def _sent(self, grant: LiveGrant, plan: Plan, now: Moment) -> Sent:
        """A digest of all that the request is made of: credentials, settings of grant and provider, and the URL. Not of
        the request itself, because a signed one is never the same twice. With a password, its account is known too,
        whatever is requested with it."""
        settings, exchange, credentials = grant.settings, _exchange(grant, plan, now), grant.credentials or {}
        locks = plan.operation is Operation.ISSUE and LOCKABLE in credentials  # then a new one-time code is no change
        found = hashlib.sha256(digest(lasting(credentials) if locks else credentials))
        found.update(repr((plan.operation, sorted(settings.settings.items()), *_transport(settings.provider))).encode())
        with contextlib.suppress(StopIteration), contextlib.closing(exchange):
            if isinstance(step := next(exchange), Request):
                found.update(step.url.encode())
        if locks:
            account = account_of(credentials)
            return Sent(found.digest(), account, grant.provider.passwords.earlier(grant.name, account, found.digest()))
        return Sent(found.digest())

    async def run(self, grant: LiveGrant, exchange: Exchange, context: ExchangeContext = NO_CONTEXT) -> Conversation:
        """The conversation with the grant's provider. What was learnt about the provider is stored."""
        provider = grant.provider
        before = provider_memory.known(provider)
        ended = await provider.converse(exchange, context)
        if context.person is None:
            self._metrics.exchange_duration.labels(provider.name).observe(ended.seconds)
        self._judged(provider, ended.outcome)
        try:
            await provider_memory.remember(self.store, provider, before, ended.outcome)
        except StoreUnavailable:
            self._metrics.store_failures.inc()
        return replace(ended, outcome=believed(ended.outcome, grant.settings.pace))

    def _judged(self, provider: Provider, outcome: Outcome) -> None:
        """The log says when a provider seems to be down, and when it answers again."""
        health, now = provider.health, self.clock.now()
        if isinstance(outcome, RetryLater) and _is_down(provider, outcome):
            failing = Failing(health.failing_since or now, provider.breaker.failures, provider.grants)
            remedy = after(provider.name, outcome)
            self._events.provider_down(provider.name, outcome.reason, failing, now, remedy)
        elif health.failing_since is None:
            self._events.provider_up(provider.name, provider.grants, now)

    # -- what an outcome does to the record

    async def _conclude(self, grant: LiveGrant, ending: Ending) -> bool:
        """Change the record by the outcome (core/grant/conclusions.py), durably. A rejection counts only if it is about
        the newest generation (law 4)."""
        plan, outcome, settings = ending.plan, ending.outcome, grant.settings
        now = self.clock.now()  # when the answer came: a slow disk must not make the first rejection the last one
        if isinstance(outcome, Rejected) and not await grant.confirm(self.store, ending.generation):
            self._events.say(Event.RENEWED_ELSEWHERE, **grant.about)
            return False
        jitter = self.entropy.fraction()
        due = grant.provider.jitter(outcome, settings.pace, jitter) if plan.target is None else None
        token = grant.record.access_token
        own = own_target(settings.settings, token.scope if token else None)
        terms = Terms(settings.requested, own, grant.can_issue(), settings.pace, grant.in_credentials, due)
        _learn(grant, ending, now, jitter)
        step = functools.partial(concluded, ending=ending, terms=terms, now=now, jitter=jitter)
        row = history.ended(plan.operation, outcome, now.wall, ending.seconds, plan.target, tracing.request_id())
        changed = await grant.change(self.store, step, row, concludes=True)
        grant.note(plan.target, outcome, now, password=ending.sent is not None and ending.sent.password is not None)
        if isinstance(outcome, Rejected) and changed is not None and changed.last_error:
            outcome = Rejected(changed.last_error)  # status and log use the same words
        tracing.note(lambda: steps.concluded(outcome, grant.record, unstored=grant.unstored, remedy=grant.remedy))
        self.report(grant, plan.operation, outcome, plan.target)
        return True

    async def verify(self, grant: LiveGrant, token: AccessToken | RefreshToken) -> Outcome:
        """Ask the provider whether the token is active. That does not use it up, and nothing is changed by it."""
        try:
            await self.read_credentials(grant, again=False)
        except SecretsUnreadable as error:
            return error.outcome
        exchange = grant.dialect.verify(grant.view(self.clock.now()), token)
        if exchange is None:
            return Unsupported("the provider has no introspection endpoint")
        ended = await self.run(grant, exchange)
        grant.note_ended(self.row(Operation.VERIFY, ended))
        self.report(grant, Operation.VERIFY, ended.outcome)
        return ended.outcome

    def row(self, operation: Operation, ended: Conversation) -> history.Ended:
        at, request_id = self.clock.now().wall, tracing.request_id()
        return history.ended(operation, ended.outcome, at, ended.seconds, request_id=request_id)

    def report(self, grant: LiveGrant, operation: Operation, outcome: Outcome, target: Target | None = None) -> None:
        """Metrics and the audit log learn of it, last."""
        name = NAMES[type(outcome)]
        self._metrics.exchanges.labels(grant.provider.name, str(operation), name).inc()
        details = {} if isinstance(outcome, Issued | Done) else {"reason": outcome.reason}
        record = grant.record
        self._events.exchanged(
            grant.name,
            grant.provider.name,
            str(operation),
            name,
            state=str(record.state),
            generation=record.generation,
            now=self.clock.now(),
            because_down=_is_down(grant.provider, outcome),
            failing=None if target else known_to_fail(record.failing_since, record.failures),
            token=record.access_token if isinstance(outcome, Issued) and not target else None,
            **({"interrupted": True} if record.uncertain else {}),
            **({"unstored": True} if grant.unstored else {}),
            **({"remedy": remedy} if (remedy := grant.remedy or after(grant.name, outcome)) else {}),
            **({"variant": str(target)} if target else {}),
            **details,
        )

    # -- credentials

    def _bind(self, grant: LiveGrant) -> None:
        """Make the key that tokens are to be bound to. It is stored with them, in one piece."""
        if grant.dialect.needs(grant.settings.settings).proof_key and grant.record.proof_key is None:
            grant.record = replace(grant.record, proof_key=grant.provider.signer.new_key())

    async def read_credentials(
        self, grant: LiveGrant, *, again: bool, refused: Mapping[str, Secret] = NONE_REFUSED
    ) -> dict[str, Secret]:
        """The grant's credentials, read when they are first needed, and again when they may have changed: tokens that
        others renew each time."""
        settings = grant.settings
        renewed = grant.dialect.needs(settings.settings).rereads & settings.credentials.keys()
        if grant.credentials is None or again or renewed or settings.has_tokens_of_grants:
            try:
                tokens = await self.tokens.read(grant, refused) if settings.has_tokens_of_grants else {}
                sources = {name: source for name, source in settings.credentials.items() if name not in tokens}
                grant.credentials = await self._read_secrets(sources) | tokens
            except SecretsUnreadable as error:
                grant.lacks_secret = error.in_file
                raise
            grant.lacks_secret = False
            tracing.note(lambda: steps.credentials(settings.credentials, read=True))
        else:
            tracing.note(lambda: steps.credentials(settings.credentials, read=False))
        return grant.credentials

    async def _still(self, grant: LiveGrant, settings: GrantSettings, used: dict[str, Secret] | None) -> bool:
        """Whether these are what would be sent. A reload, or a refresh by hand, drops credentials, to be read again."""
        try:
            return grant.settings == settings and await self.read_credentials(grant, again=False) == used
        except SecretsUnreadable:
            return False

    async def _changed(self, grant: LiveGrant, used: dict[str, Secret], status: int | None) -> bool:
        """Before Misconfigured is believed, secret files and commands are read again (law 7), and the tokens of other
        grants are replaced where that `status` may be about one."""
        refused = used if status in REFUSES_WHO_ASKS else NONE_REFUSED
        try:
            return await self.read_credentials(grant, again=True, refused=refused) != used
        except SecretsUnreadable:
            return False


def _ending(plan: Plan, generation: int, ended: Conversation, sends_stored: bool, sent: Sent) -> Ending:
    return Ending(plan, generation, ended.outcome, ended.at, ended.status, sends_stored, sent, ended.seconds)


def _is_down(provider: Provider, outcome: Outcome) -> bool:
    """Whether the exchange failed because the whole provider seems to be down."""
    return provider.breaker.is_open and isinstance(outcome, RetryLater) and outcome.cause.down


def _begin_again(grant: LiveGrant) -> None:
    """Nothing was sent: who waits for the exchange waits for the next one."""
    if grant.running is not None:
        grant.running.postponed = True


def _stands(plan: Plan, grant: LiveGrant, generation: int, now: Moment) -> bool:
    """Whether the plan can still be carried out: the grant was neither revoked nor given a new token since, and what
    would be sent lives (a machine may have been suspended)."""
    if grant.stopped or grant.record.generation != generation or grant.record.state is State.REVOKED:
        return False
    ability = grant.ability(now, plan.target)
    if plan.operation is Operation.RENEW:
        return ability.renew and usable(grant.record.refresh_token, now)
    return ability.issue


def _held_back(grant: LiveGrant, sent: Sent, now: Moment) -> float:
    """Seconds before this may be sent (law 7); 0 or less: now."""
    if sent.password is not None:
        return grant.provider.passwords.wait(grant.name, sent.password, sent.request, now)
    return wait_before(grant.record, sent, now)


def _learn(grant: LiveGrant, ending: Ending, now: Moment, jitter: float) -> None:
    """Tell the provider's other grants with the same password what the outcome says about it."""
    passwords, sent = grant.provider.passwords, ending.sent
    if sent is None or sent.password is None:
        return
    match verdict(ending):
        case Verdict.REFUSED:
            passwords.refuse(sent.password)
        case Verdict.DOUBTED:
            passwords.doubt(grant.name, sent.doubt(now, doubted_delay(sent.times, jitter)))
        case Verdict.ACCEPTED:
            passwords.trust(sent.password)
        case Verdict.NOTHING:
            passwords.leave(grant.name, sent.password, sent.earlier)


def _exchange(grant: LiveGrant, plan: Plan, now: Moment) -> Exchange:
    view, dialect = grant.view(now, plan.target), grant.dialect
    return dialect.renew(view) if plan.operation is Operation.RENEW else dialect.issue(view)


def _transport(provider: ProviderSettings) -> tuple[object, ...]:
    """The settings of a provider, besides its URL, that a request depends on."""
    return provider.ca_file, provider.cert_file, provider.key_file, provider.proxy and provider.proxy.reveal()
