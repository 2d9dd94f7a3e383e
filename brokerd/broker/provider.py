# A provider at run time: its HTTP client, its limit of requests, its breaker; and the loop that runs an exchange over
# them. It knows nothing about grants: exchanges.py decides what an outcome means for one.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from brokerd.config.settings import ProviderSettings
from brokerd.core.exchange import health
from brokerd.core.exchange.health import Health
from brokerd.core.exchange.outcomes import Cause, Issued, Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.server_metadata import Metadata, to_agree
from brokerd.core.exchange.signing import Signer
from brokerd.core.exchange.steps import (
    Answer,
    Ask,
    Brought,
    Discover,
    Discovery,
    Exchange,
    Request,
    Response,
    Step,
    Unanswered,
    Wait,
)
from brokerd.core.grant.passwords import Passwords
from brokerd.core.grant.renewal import Pace
from brokerd.core.grant.renewal_load import RenewalLoad
from brokerd.core.ports import AddressRefused, Clock, Entropy, Http, StoreUnavailable, TransportError
from brokerd.core.timing.breaker import Breaker, failed, probing, succeeded
from brokerd.core.timing.moment import Moment, seconds_until
from brokerd.dialects.shown_messages import answer_shown, request_shown
from brokerd.telemetry import steps, tracing

Journal = Callable[[], Awaitable[None]]  # raises StoreUnavailable
Stands = Callable[[], bool]  # whether an exchange still has a purpose
OVERTAKEN = "the grant was revoked or given a new token meanwhile"
LATE = 3.0  # seconds after which people see that an answer is missing
PATIENCE = 3_600.0  # seconds before an issuer that did not answer is asked again, if there is an older document


class Person(Protocol):
    """The person that logs in. Only these two methods of a login may be cancelled."""

    async def ask(self, step: Ask) -> Brought | None:
        """Show the prompt, and wait for the person's answer if the step wants one."""
        ...

    async def wait(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class ExchangeContext:
    """What an exchange needs besides the provider. `journal` is awaited before a stored token is sent: no journal, no
    sending (law 2). `stands` is asked when the limit lets the first request go: what the exchange was begun for may be
    over by then. `last_look`: for each request that sends a stored token. `person` is there for logins."""

    journal: Journal | None = None
    stands: Stands | None = None
    last_look: Callable[[], None] | None = None
    person: Person | None = None


NO_CONTEXT = ExchangeContext()


@dataclass(frozen=True, slots=True)
class Conversation:
    """How an exchange ended, and when its last request left: what it brought was made then or later. `status`: of the
    answer that ended it, None: it was no answer. `seconds`: from its first request to its end."""

    outcome: Outcome
    at: Moment
    status: int | None = None
    seconds: float = 0.0


class _Ended(Exception):
    """A step failed, so the exchange ends with this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


@dataclass(eq=False, repr=False)
class Provider:
    """One configured provider. `busy`: exchanges under way. `queue`: grants that are due and wait for one to end, each
    once: ten thousand grants of a slow provider are names in a queue and not tasks. `metadata`: what the provider says
    about itself. `nonce`: its newest one for DPoP proofs. `health`: what people see of it. `grants`: how many use it.

    It has more than 12 attributes because all of them are facts about the one provider that outlive a reload."""

    settings: ProviderSettings
    http: Http
    breaker: Breaker
    _clock: Clock
    _entropy: Entropy
    metadata: Metadata | None = None
    nonce: str | None = None
    health: Health = field(default_factory=Health)
    certificates: Mapping[str, float] = field(default_factory=dict)  # when each ends, in Unix seconds
    unanswered: dict[int, Moment] = field(default_factory=dict)  # requests that have no answer yet: when each left
    grants: int = 0
    busy: int = 0
    queue: OrderedDict[str, None] = field(default_factory=OrderedDict)
    passwords: Passwords = field(default_factory=Passwords)
    load: RenewalLoad = field(default_factory=RenewalLoad)
    _discovering: trio.Lock = field(default_factory=trio.Lock)
    _asked: Moment | None = None  # when the issuer was last asked for its metadata
    _reopened: bool = False
    _turns: WeakValueDictionary[bytes, trio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.name = self.settings.name
        self.signer = Signer(self._clock, self._entropy)
        self._limiter = trio.CapacityLimiter(self.settings.concurrency)

    def reconfigured(self, settings: ProviderSettings, http: Http) -> None:
        """New settings after a reload. What was learnt about the provider stays, except whether it can be reached."""
        self.breaker, self.health, self.certificates = Breaker(), Health(), {}
        self.settings = settings
        self.http = http
        self._limiter.total_tokens = settings.concurrency

    def trust(self, issuer: str) -> Metadata:
        """An operator agreed to what the issuer names: its metadata is fetched again and pinned."""
        self.metadata, self._asked = to_agree(self.metadata, issuer, self._clock.now()), None
        return self.metadata

    def take_place(self) -> None:
        """An exchange begins. While the provider seems to be down, one exchange is a probe, and no other begins."""
        self.busy += 1
        self.breaker = probing(self.breaker, self._clock.now())

    def jitter(self, outcome: Outcome, pace: Pace, drawn: float) -> float | None:
        """The jitter of the access token that the outcome brings, so that its renewal does not meet too many others.
        None: it brings none that brokerd renews by itself."""
        token = outcome.tokens.access_token if isinstance(outcome, Issued) and not pace.on_demand else None
        if token is None:
            return None
        lifetime = pace.lifetime if token.lifetime is None else token.lifetime
        return self.load.jitter(lifetime, self._clock.now().boot, drawn)

    async def converse(self, exchange: Exchange, context: ExchangeContext = NO_CONTEXT) -> Conversation:
        """Run an exchange to its end: requests go out within the provider's limit, and a failure of the transport ends
        it."""
        began = at = self._clock.now()
        answer: Answer = None
        outcome: Outcome | None = None
        last: Response | None = None
        heard = False
        try:
            while outcome is None:
                try:
                    step = exchange.send(answer)
                except StopIteration as stop:
                    outcome = stop.value
                    break
                last = None
                try:
                    answer = await self._take(step, context, is_first=not heard)
                except AddressRefused as error:
                    outcome = Misconfigured(f"{error.reason}; if it is right: brokerctl trust {self.name}")
                except TransportError as error:
                    if isinstance(step, Request) and step.patient:
                        answer = Unanswered(error.reason)
                        continue
                    outcome = RetryLater(error.reason, Cause.UNANSWERED if error.sent else Cause.UNREACHABLE)
                except StoreUnavailable as error:
                    outcome = RetryLater(str(error), Cause.POSTPONED)
                except _Ended as ended:
                    outcome = ended.outcome
                if isinstance(answer, Response):
                    began = began if heard else answer.sent_at
                    at, last = answer.sent_at, answer if outcome is None else None
                    heard = True
        finally:
            exchange.close()
        assert outcome is not None, "an exchange ended without an outcome"
        self._judge(outcome, heard)
        tracing.ended(outcome)
        return Conversation(outcome, at, last.status if last else None, self._clock.now().boot - began.boot)

    def turn(self, password: bytes) -> trio.Lock:
        """Held while a password is sent: what one grant learns of it, the next one knows before it sends the same."""
        return self._turns.setdefault(password, trio.Lock())

    def take_reopened(self) -> bool:
        """Whether the breaker has closed since this was last asked: everybody's next try is then sooner."""
        reopened, self._reopened = self._reopened, False
        return reopened

    async def _take(self, step: Step, context: ExchangeContext, *, is_first: bool) -> Answer:
        """The answer to a step. `is_first`: the provider has answered nothing yet."""
        match step:
            case Wait():
                await (context.person.wait if context.person else trio.sleep)(step.seconds)
                return None
            case Ask():
                assert context.person is not None, "an exchange that asks somebody is a login"
                return await context.person.ask(step)
            case Discover():
                return await self._discovered()
            case Request():
                last_look = context.last_look if step.sends_stored else None
                request = step if last_look is None else replace(step, last_look=last_look)
                return await self._send(request, context.journal, context.stands if is_first else None)

    async def _send(self, request: Request, journal: Journal | None = None, stands: Stands | None = None) -> Response:
        if self._limiter.available_tokens < 1:
            tracing.note(lambda: steps.queued(self.settings.concurrency))
        async with self._limiter:
            if stands is not None and not stands():
                raise _Ended(RetryLater(OVERTAKEN, Cause.POSTPONED))
            if request.sends_stored and journal is not None:
                await journal()
            response = await self._answer(tracing.marked(request, self.settings.request_id_header))
        self.nonce = response.header("dpop-nonce") or self.nonce
        return response

    async def _answer(self, request: Request) -> Response:
        """Send it and read the answer. How long that takes is kept, and told to those who follow the exchange."""
        moment = self._clock.now()
        began, number = moment.boot, id(request)
        tracing.note(lambda: steps.sends(request_shown(request)))
        self.unanswered[number] = moment
        try:
            response = await self.http.send(request)
        except TransportError as error:
            reason, sent = error.reason, error.sent
            if sent:
                self.health = health.timed(self.health, self._clock.now().boot - began)
            tracing.note(lambda: steps.unanswered(reason, sent=sent))
            raise
        finally:
            del self.unanswered[number]
        took = self._clock.now().boot - began
        self.health = health.timed(self.health, took)
        own = tracing.answered(request, response)
        tracing.note(lambda: steps.answers(answer_shown(response, request, own), took))
        return response

    def unanswered_since(self, now: Moment) -> Moment | None:
        """Since when a request waits for its answer; None: no answer is late."""
        first = next(iter(self.unanswered.values()), None)
        return first if first is not None and -seconds_until(first, now) >= LATE else None

    async def _discovered(self) -> Metadata:
        """The metadata, read again when it is old: one caller reads, all wait for it. If the issuer is away or its
        answer cannot be used, an older document still counts; if the document names other origins, an operator must
        agree (core/exchange/server_metadata.py)."""
        async with self._discovering:
            dialect, now = self.settings.dialect, self._clock.now()
            known = self.metadata
            mine = known if known is not None and known.issuer == dialect.issuer else None
            asked_lately = self._asked is not None and -seconds_until(self._asked, now) < PATIENCE
            if mine is not None and (mine.is_fresh(now) or (mine.endpoints and asked_lately)):
                return mine
            self._asked = now
            found = await self._learn(dialect.discover(mine))
            if isinstance(found, Metadata):
                self.metadata = found
                return found
            if mine is not None and mine.endpoints and isinstance(found, RetryLater):
                return mine
            raise _Ended(found)

    async def _learn(self, discovery: Discovery) -> Metadata | Outcome:
        answer: Answer = None
        try:
            while True:
                step = discovery.send(answer)
                assert isinstance(step, Request), "a discovery only asks"
                answer = await self._send(step)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except TransportError as error:
            return RetryLater(f"discovery: {error.reason}", Cause.UNREACHABLE)
        finally:
            discovery.close()

    def _judge(self, outcome: Outcome, heard: bool) -> None:
        """What the outcome says about the provider as a whole. `heard`: it has answered something."""
        was_shut, now = self.breaker.shut_until is not None, self._clock.now()
        if isinstance(outcome, RetryLater) and outcome.cause.down:
            self.breaker = failed(self.breaker, now, self._entropy.fraction(), outcome.after)
            self.health = health.failed(self.health, outcome.cause, now)
        elif heard:
            self.breaker = succeeded(self.breaker)
            self.health = health.answered(self.health, now)
            self._reopened = self._reopened or was_shut
