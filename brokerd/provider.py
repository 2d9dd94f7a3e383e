# A provider as the daemon holds it: its way out, its limit, its breaker; and the driver that runs an exchange over
# them. It knows nothing of grants: what an outcome means for one is decided by who asked.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import trio

from brokerd.config import ProviderSettings
from brokerd.core.breaker import Breaker, failed, probing, succeeded
from brokerd.core.exchange import Answer, Exchange, Step, Wait
from brokerd.core.moment import Moment
from brokerd.core.outcome import Cause, Outcome, RetryLater
from brokerd.core.ports import Clock, Entropy, Http, StoreUnavailable, TransportError
from brokerd.core.signing import Signer

Journal = Callable[[], Awaitable[None]]  # raises StoreUnavailable


@dataclass(frozen=True, slots=True)
class Conversation:
    """How an exchange ended, and when its last request left: what it brought was made then or later."""

    outcome: Outcome
    at: Moment


class Provider:
    """One configured provider at work. `busy`: flights under way; `queue`: grants that are due and wait for one to
    end, each once, so that ten thousand of a slow provider's are names in a queue and not tasks. `refused`: digests of
    the passwords that it refused: an account may have several grants, and their tries together lock it (law 7)."""

    __slots__ = (
        "_clock",
        "_entropy",
        "_limiter",
        "_reopened",
        "_turns",
        "breaker",
        "busy",
        "http",
        "name",
        "queue",
        "refused",
        "settings",
        "signer",
    )

    def __init__(
        self, settings: ProviderSettings, http: Http, breaker: Breaker, clock: Clock, entropy: Entropy
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.http = http
        self.breaker = breaker
        self._clock = clock
        self._entropy = entropy
        self.signer = Signer(clock, entropy)
        self._reopened = False
        self.busy = 0
        self.queue: OrderedDict[str, None] = OrderedDict()
        self.refused: set[bytes] = set()
        self._turns: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()
        self._limiter = trio.CapacityLimiter(settings.concurrency)

    def reconfigured(self, settings: ProviderSettings, http: Http) -> None:
        """New settings after a reload; what was learnt about the provider stays."""
        self.settings = settings
        self.http = http
        self._limiter.total_tokens = settings.concurrency

    def take_place(self) -> None:
        """A flight begins. Where the provider seems to be down it is a probe, and nobody else's begins beside it."""
        self.busy += 1
        self.breaker = probing(self.breaker, self._clock.now())

    async def converse(self, exchange: Exchange, journal: Journal | None = None) -> Conversation:
        """Run an exchange to its end (DESIGN.md 2): requests go out within the provider's limit, and a failure of the
        transport ends it. `journal` is awaited before a request that spends leaves: no journal, no send (law 2)."""
        at, answer = self._clock.now(), None
        outcome: Outcome | None = None
        heard = False
        try:
            while outcome is None:
                try:
                    step = exchange.send(answer)
                except StopIteration as stop:
                    outcome = stop.value
                    break
                try:
                    answer = await self._take(step, journal)
                except TransportError as error:
                    outcome = RetryLater(error.reason, Cause.UNANSWERED if error.sent else Cause.UNREACHABLE)
                except StoreUnavailable as error:
                    outcome = RetryLater(str(error), Cause.POSTPONED)
                if answer is not None:
                    at = answer.sent_at
                    heard = True
        finally:
            exchange.close()
        assert outcome is not None, "an exchange ended without an outcome"
        self._judge(outcome, heard)
        return Conversation(outcome, at)

    def turn(self, password: bytes) -> trio.Lock:
        """Held while a password is sent: what one grant learns of it, the next one knows before it sends the same."""
        return self._turns.setdefault(password, trio.Lock())

    def take_reopened(self) -> bool:
        """Whether the breaker has closed since this was last asked: everybody's next try is then sooner."""
        reopened, self._reopened = self._reopened, False
        return reopened

    async def _take(self, step: Step, journal: Journal | None) -> Answer:
        if isinstance(step, Wait):
            await trio.sleep(step.seconds)
            return None
        async with self._limiter:
            if step.spends and journal is not None:
                await journal()
            return await self.http.send(step)

    def _judge(self, outcome: Outcome, heard: bool) -> None:
        """What the outcome says of the provider as a whole; `heard`: it answered something."""
        was_shut = self.breaker.shut_until is not None
        if isinstance(outcome, RetryLater) and outcome.cause.down:
            self.breaker = failed(self.breaker, self._clock.now(), self._entropy.fraction())
        elif heard:
            self.breaker = succeeded(self.breaker)
            self._reopened = self._reopened or was_shut
