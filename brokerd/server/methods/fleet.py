# fleet: the hosts that share their grants with this one, who has an exchange under way, and how etcd is. The answer has
# no secret.
from __future__ import annotations

from dataclasses import asdict
from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.server.methods.method import AnswerLater
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession

NO_FLEET = {"fleet": None, "host": None, "etcd": None, "members": (), "claims": (), "open_exchanges": ()}


class FleetMethod:
    def __init__(self, broker: TokenBroker, rights: Rights) -> None:
        self._broker = broker
        self._rights = rights

    def fleet(self, session: CallerSession, _params: dict[str, Any]) -> AnswerLater:
        """For callers that may see the status of every grant: the answer names grants that this host may not have."""
        self._require(session)

        @AnswerLater
        async def answer() -> object:
            view = None if self._broker.fleet is None else await self._broker.fleet.fleet()
            await self._rights.look_again(session, [None], "fleet")
            self._require(session)
            return NO_FLEET if view is None else asdict(view)

        return answer

    def _require(self, session: CallerSession) -> None:
        self._rights.require_status_of_all(session, "fleet")
