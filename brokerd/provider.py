# A provider as the daemon holds it: its way out, its limit, its breaker; and the driver that runs an exchange over
# them. It knows nothing of grants: what an outcome means for one is decided by who asked.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from brokerd.config import ProviderSettings
from brokerd.core.breaker import Breaker, failed, probing, succeeded
from brokerd.core.exchange import (
    Answer,
    Ask,
    Brought,
    Discover,
    Discovery,
    Exchange,
    Request,
    Response,
    Step,
    TokenOf,
    Unanswered,
    Wait,
)
from brokerd.core.metadata import Metadata, to_agree
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import Cause, Misconfigured, Outcome, RetryLater
from brokerd.core.passwords import Passwords
from brokerd.core.ports import AddressRefused, Clock, Entropy, Http, StoreUnavailable, TransportError
from brokerd.core.secret import Secret
from brokerd.core.signing import Signer

Journal = Callable[[], Awaitable[None]]  # raises StoreUnavailable
Stands = Callable[[], bool]  # whether an exchange is still wanted
Subjects = Callable[[str], Awaitable[Secret | None]]  # a grant's living access token
OVERTAKEN = "the grant was revoked or given a new token meanwhile"
PATIENCE = 3_600.0  # seconds until an issuer that could not be asked is asked again, an older document being there


class Person(Protocol):
    """Who logs in. Both may be cancelled; nothing else of a login is."""

    async def ask(self, step: Ask) -> Brought | None:
        """Show it, and wait for what he brings where the step wants that."""
        ...

    async def wait(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Conversation:
    """How an exchange ended, and when its last request left: what it brought was made then or later. `status`: of the
    answer that ended it, None: it was no answer."""

    outcome: Outcome
    at: Moment
    status: int | None = None


class _Ended(Exception):
    """A step came to nothing, and the exchange with it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Provider:
    """One configured provider at work. `busy`: flights under way; `queue`: grants that are due and wait for one to
    end, each once, so that ten thousand of a slow provider's are names in a queue and not tasks. `metadata` is what it
    said of itself, `nonce` its newest for DPoP proofs."""

    def __init__(
        self,
        settings: ProviderSettings,
        http: Http,
        breaker: Breaker,
        clock: Clock,
        entropy: Entropy,
        metadata: Metadata | None = None,
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.http = http
        self.breaker = breaker
        self._clock = clock
        self._entropy = entropy
        self.signer = Signer(clock, entropy)
        self.metadata = metadata
        self.nonce: str | None = None
        self._discovering = trio.Lock()
        self._asked: Moment | None = None  # when the issuer was last asked for its metadata
        self._reopened = False
        self.busy = 0
        self.queue: OrderedDict[str, None] = OrderedDict()
        self.passwords = Passwords()
        self._turns: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()
        self._limiter = trio.CapacityLimiter(settings.concurrency)

    def reconfigured(self, settings: ProviderSettings, http: Http) -> None:
        """New settings after a reload; what was learnt about the provider stays, but for whether it can be reached."""
        self.breaker = Breaker()
        self.settings = settings
        self.http = http
        self._limiter.total_tokens = settings.concurrency

    def trust(self, issuer: str) -> Metadata:
        """An operator agreed to what the issuer names: it is met anew, and what it names then is pinned."""
        self.metadata, self._asked = to_agree(self.metadata, issuer, self._clock.now()), None
        return self.metadata

    def take_place(self) -> None:
        """A flight begins. Where the provider seems to be down it is a probe, and nobody else's begins beside it."""
        self.busy += 1
        self.breaker = probing(self.breaker, self._clock.now())

    async def converse(
        self,
        exchange: Exchange,
        journal: Journal | None = None,
        subjects: Subjects | None = None,
        person: Person | None = None,
        stands: Stands | None = None,
    ) -> Conversation:
        """Run an exchange to its end (DESIGN.md 2): requests go out within the provider's limit, and a failure of the
        transport ends it. `journal` is awaited before a request that spends leaves: no journal, no send (law 2).
        `stands` is asked when the limit lets the first request go: what it was waited for may be over by then.
        `subjects` has the tokens of other grants; `person` is there for logins."""
        at, answer = self._clock.now(), None
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
                    answer = await self._take(step, journal, subjects, person, None if heard else stands)
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
                    at, last = answer.sent_at, answer if outcome is None else None
                    heard = True
        finally:
            exchange.close()
        assert outcome is not None, "an exchange ended without an outcome"
        self._judge(outcome, heard)
        return Conversation(outcome, at, last.status if last else None)

    def turn(self, password: bytes) -> trio.Lock:
        """Held while a password is sent: what one grant learns of it, the next one knows before it sends the same."""
        return self._turns.setdefault(password, trio.Lock())

    def take_reopened(self) -> bool:
        """Whether the breaker has closed since this was last asked: everybody's next try is then sooner."""
        reopened, self._reopened = self._reopened, False
        return reopened

    async def _take(
        self,
        step: Step,
        journal: Journal | None,
        subjects: Subjects | None,
        person: Person | None,
        stands: Stands | None,
    ) -> Answer:
        match step:
            case Wait():
                await (person.wait if person else trio.sleep)(step.seconds)
                return None
            case Ask():
                assert person is not None, "an exchange that asks somebody is a login"
                return await person.ask(step)
            case Discover():
                return await self._discovered()
            case TokenOf():
                token = await subjects(step.grant) if subjects is not None else None
                if token is None:
                    words = f"the grant {step.grant}, whose token it is got with, has none now"
                    raise _Ended(RetryLater(words, Cause.POSTPONED))
                return token
            case Request():
                return await self._send(step, journal, stands)

    async def _send(self, request: Request, journal: Journal | None, stands: Stands | None = None) -> Response:
        async with self._limiter:
            if stands is not None and not stands():
                raise _Ended(RetryLater(OVERTAKEN, Cause.POSTPONED))
            if request.spends and journal is not None:
                await journal()
            response = await self.http.send(request)
        self.nonce = response.header("dpop-nonce") or self.nonce
        return response

    async def _discovered(self) -> Metadata:
        """The metadata, learnt anew where it is old: by one at a time, for everybody. An issuer that is away or strange
        costs nothing while an older document is there; one that points elsewhere does (core/metadata.py)."""
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
                answer = await self._send(step, None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except TransportError as error:
            return RetryLater(f"discovery: {error.reason}", Cause.UNREACHABLE)
        finally:
            discovery.close()

    def _judge(self, outcome: Outcome, heard: bool) -> None:
        """What the outcome says of the provider as a whole; `heard`: it answered something."""
        was_shut = self.breaker.shut_until is not None
        if isinstance(outcome, RetryLater) and outcome.cause.down:
            self.breaker = failed(self.breaker, self._clock.now(), self._entropy.fraction(), outcome.after)
        elif heard:
            self.breaker = succeeded(self.breaker)
            self._reopened = self._reopened or was_shut
