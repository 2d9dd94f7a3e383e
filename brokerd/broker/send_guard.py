# What is asked before the requests of an exchange leave: whether it still has a purpose, and whether a stored token may
# be sent now (laws 2, 3 and 10). exchanges.py runs the exchange.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import OVERTAKEN
from brokerd.core.grant.renewal import sent_again_after
from brokerd.core.ports import Clock, Store, StoreUnavailable
from brokerd.core.secret import Secret
from brokerd.telemetry import steps, tracing


class TokensOfGrants(Protocol):
    """The tokens of other grants, as credentials."""

    async def read(self, grant: LiveGrant, refused: Mapping[str, Secret]) -> dict[str, Secret]:
        """Newer ones than those that were `refused`, if possible. Raises SecretsUnreadable."""
        ...

    def live(self, grant: LiveGrant) -> bool:
        """Whether each grant whose token this one is got with still has one."""
        ...


@dataclass(frozen=True, slots=True)
class SendGuard:
    """Asked by provider.py before requests of an exchange leave. `generation`: the record's when the exchange began.
    `scope` is the exchange's own cancel scope."""

    store: Store
    clock: Clock
    grant: LiveGrant
    generation: int
    scope: trio.CancelScope
    tokens: TokensOfGrants

    def stands(self) -> bool:
        """Whether the exchange still has a purpose: the grant was neither revoked nor given another token, and no
        token of another grant would be sent that was revoked meanwhile (law 10)."""
        is_same = not self.grant.stopped and self.grant.record.generation == self.generation
        return is_same and self.tokens.live(self.grant)

    async def journal(self) -> None:
        """Before a stored token is sent (law 2). Raises StoreUnavailable where it must not be sent now."""
        grant, store = self.grant, self.store
        self.scope.shield = True  # from here on the exchange runs to its end, whatever is cancelled (law 3)
        await store.begin(grant.name, grant.fingerprint, self.generation, self.clock.now())
        tracing.note(lambda: steps.journalled(self.generation))
        await grant.settled()  # what was written in the same transaction may be durable before memory knows
        if sent_again_after(grant.record, grant.settings.pace, self.clock.now()) > 0:
            raise StoreUnavailable("the provider's grace for a used refresh token ended while the exchange waited")
        if not self.stands():
            raise StoreUnavailable(OVERTAKEN)
