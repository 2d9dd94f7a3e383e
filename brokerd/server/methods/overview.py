# overview: all that the page shows (docs/page.md), as far as the caller may see it by the action `status`. No answer
# contains a secret.
from __future__ import annotations

from collections import Counter
from typing import Any

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.provider import Provider
from brokerd.broker.provider_status import provider_status
from brokerd.core.access.admission import LOOK
from brokerd.core.access.policy import Action
from brokerd.core.grant.condition import shown_state
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.status import TURN, StatusMethods
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog

EVENTS = 30  # of the newest events in an answer


class OverviewMethod:
    def __init__(self, broker: TokenBroker, rights: Rights, status: StatusMethods, events: EventLog) -> None:
        self._broker = broker
        self._rights = rights
        self._status = status
        self._events = events

    def cost(self, _params: dict[str, Any]) -> float:
        return LOOK * len(list(self._broker.names))

    def overview(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        """With `grants`, only these are in the answer; the rest of it is about all."""
        named: list[str] | None = params.get("grants")
        for name in named or ():
            self._rights.require(session, Action.STATUS, name, "overview")

        @AnswerLater
        async def answer() -> object:
            await self._rights.look_again(session, [None], "overview")
            shown, providers, states = list[dict[str, object]](), dict[str, Provider](), Counter[str]()
            for number, name in enumerate(sorted(self._broker.names), 1):
                if self._may_see(session, name) and name in self._broker.names:
                    status = self._status.of_grant(name)
                    states[shown_state(status)] += 1
                    if (grant := self._broker.grants.get(name)) is not None:  # none are there while brokerd is locked
                        providers[grant.provider.name] = grant.provider
                    if named is None or name in named:
                        shown.append(status | {"history": self._status.history(name)})
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
            return {
                "daemon": self._status.daemon(),
                "states": states,
                "grants": shown,
                "providers": [provider_status(providers[name], self._broker.now()) for name in sorted(providers)],
                "events": self._newest(session),
            }

        return answer

    def _may_see(self, session: CallerSession, name: str) -> bool:
        return self._rights.allows(session, Action.STATUS, name)

    def _newest(self, session: CallerSession) -> list[dict[str, object]]:
        """Administrators see all, others what happened to the grants that they may see."""
        fully = self._rights.matching(session).allows_administration(session.caller)
        return self._events.recent.newest(EVENTS, lambda name: self._may_see(session, name), fully=fully)
