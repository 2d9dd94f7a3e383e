# metrics, live, ready, grant_ready: what programs ask that watch over brokerd. No answer contains a secret.
from __future__ import annotations

from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.broker.gauges import is_ready
from brokerd.core.access.policy import Action
from brokerd.core.errors import Code, Failure
from brokerd.server import readiness_checks as checks
from brokerd.server.methods.method import AnswerLater
from brokerd.server.rights import Rights
from brokerd.server.scrape import Scrape
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.exposition import CONTENT_TYPE


class HealthMethods:
    def __init__(self, broker: TokenBroker, rights: Rights, events: EventLog, scrape: Scrape) -> None:
        self._broker = broker
        self._rights = rights
        self._events = events
        self._scrape = scrape

    def metrics(self, session: CallerSession, _params: dict[str, Any]) -> AnswerLater:
        """The daemon's numbers, and those of the grants that the caller may see by the action `status`."""

        @AnswerLater
        async def answer() -> object:
            await self._rights.look_again(session, [None], "metrics")
            text = await self._scrape.text(lambda name: self._rights.allows(session, Action.STATUS, name))
            return {"content_type": CONTENT_TYPE, "text": text}

        return answer

    def live(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        """It answers, so the process and its event loop run."""
        return {"live": True}

    def ready(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        found = checks.checked(self._broker, self._events)
        return {
            "ready": checks.is_ready(found),
            "checks": [{"name": name, "ok": why is None, "reason": why} for name, why in found],
            "text": checks.as_text(found),
        }

    def grant_ready(self, _session: CallerSession, params: dict[str, Any]) -> object:
        """Raises Failure, with the reason, if a caller would get no token of the grant now."""
        if self._broker.locked:  # while it is being locked, the grants are still there
            raise self._broker.locked_failure()
        grant = self._broker.grant(params["grant"])
        token = grant.serves(self._broker.now())
        if (why := self._events.forbids_serving) is not None:
            raise Failure(Code.UNAVAILABLE, f"{grant.name}: the audit log cannot be written: {why}", grant.name, 5.0)
        if not is_ready(grant, token):
            raise self._broker.failure(grant)
        return {"grant": grant.name, "ready": True}
