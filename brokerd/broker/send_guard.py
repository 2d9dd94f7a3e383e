# What is asked before the requests of an exchange leave: whether it still has a purpose, and whether a stored token may
# be sent now (laws 2, 3 and 10). exchanges.py runs the exchange.
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import OVERTAKEN
from brokerd.core.exchange.steps import ANSWER_TIMEOUT
from brokerd.core.grant import attempts
from brokerd.core.grant.renewal import in_grace, sent_again_after
from brokerd.core.ports import Awaits, Clock, HeldElsewhere, NotNow, Store, StoreUnavailable
from brokerd.core.secret import Secret
from brokerd.telemetry import steps, tracing

LOOK_AGAIN = 5.0  # seconds until an exchange is tried again that this host may not begin now
SENDING = 60.0  # seconds for everything before the answer is waited for: connecting, and sending the request


class TokensOfGrants(Protocol):
    """The tokens of other grants, as credentials."""

    async def read(self, grant: LiveGrant, refused: Mapping[str, Secret]) -> dict[str, Secret]:
        """Newer ones than those that were `refused`, if possible. Raises SecretsUnreadable."""
        ...

    def live(self, grant: LiveGrant) -> bool:
        """Whether each grant whose token this one is got with still has one."""
        ...


@dataclass(slots=True)
class SendGuard:
    """Asked by provider.py before requests of an exchange leave. `generation`: the record's when the exchange began.
    `scope` is the exchange's own cancel scope. `held`: it is not for this host of a fleet, because another one has
    the grant's exchange, or `refused` says why."""

    store: Store
    clock: Clock
    grant: LiveGrant
    generation: int
    scope: trio.CancelScope
    tokens: TokensOfGrants
    held: bool = False
    refused: str | None = None

    def stands(self) -> bool:
        """Whether the exchange still has a purpose: the grant was neither revoked nor given another token, and no
        token of another grant would be sent that was revoked meanwhile (law 10)."""
        is_same = not self.grant.stopped and self.grant.record.generation == self.generation
        return is_same and self.tokens.live(self.grant)

    async def journal(self) -> None:
        """Before a stored token is sent (law 2). Raises StoreUnavailable where it must not be sent now."""
        grant, pace = self.grant, self.grant.settings.pace
        self.scope.shield = True  # from here on the exchange runs to its end, whatever is cancelled (law 3)
        awaits = Awaits(
            (grant.provider.settings.answer_timeout or ANSWER_TIMEOUT) + SENDING,
            patient=not in_grace(grant.record, pace, self.clock.now()),
        )
        with self._noticing():
            await self.store.begin(grant.name, grant.fingerprint, self.generation, self.clock.now(), awaits)
        tracing.note(lambda: steps.journalled(self.generation))
        await grant.settled()  # what was written in the same transaction may be durable before memory knows
        if sent_again_after(grant.record, pace, self.clock.now()) > 0:
            raise StoreUnavailable("the provider's grace for a used refresh token ended while the exchange waited")
        if not self.stands():
            raise StoreUnavailable(OVERTAKEN)

    async def claim(self) -> bool:
        """Before an exchange that sends no stored token. It goes on if nobody can say whether another host has one.
        False: one has it."""
        with contextlib.suppress(StoreUnavailable), self._noticing():
            await self.store.claim(self.grant.name, self.grant.fingerprint, self.clock.now())
        return not self.held

    async def wait_for_other(self) -> None:
        """Another host has an exchange of the grant: its result is for those who wait here too (law 1)."""
        grant = self.grant
        if self.refused is not None:
            grant.record = attempts.not_begun(grant.record, self.refused, self.clock.now(), LOOK_AGAIN)
            return
        grant.record = attempts.reopened(grant.record, interrupted=None)
        if grant.running is not None:
            grant.running.elsewhere = True
            grant.forget_early_renewal(grant.running.target)
        await self.store.until_free(grant.name, grant.fingerprint)

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except HeldElsewhere:
            self.held = True
            raise
        except NotNow as error:
            self.held, self.refused = True, str(error)
            raise

    def last_look(self) -> None:
        """Right before a stored token leaves. Raises StoreUnavailable."""
        with self._noticing():
            self.store.last_look(self.grant.name, self.grant.fingerprint)
