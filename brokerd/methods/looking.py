# hello, status and verify: what there is, for who may see it, and what its provider says of it. No secret is in an
# answer.
from __future__ import annotations

import os
import time
from typing import Any

import trio

from brokerd import __version__
from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.core.policy import Action
from brokerd.methods.parameters import WAIT
from brokerd.methods.session import Later, Rights, Session

PROTOCOL = 1
MAX_MESSAGE = 64 * 1024  # bytes
MAX_IN_FLIGHT = 128  # requests waiting on one connection
TURN = 50  # grants that one status looks at before other callers have their turn
NOT_ADOPTED = "the store was restored or copied to this machine: nothing is spent until: brokerctl adopt"


class Looking:
    def __init__(self, broker: Broker, rights: Rights, audit: Audit) -> None:
        self._broker = broker
        self._rights = rights
        self._audit = audit
        self._started_at = round(time.time(), 2)

    def hello(self, _session: Session, _params: dict[str, Any]) -> dict[str, object]:
        return {
            "server": __version__,
            "protocol": PROTOCOL,
            "max_message": MAX_MESSAGE,
            "max_in_flight": MAX_IN_FLIGHT,
        }

    def number(self, params: dict[str, Any]) -> int:
        """How many grants a status looks at."""
        return len(params["grants"]) if "grants" in params else len(list(self._broker.names))

    def status(self, session: Session, params: dict[str, Any]) -> Later:
        for name in params.get("grants", ()):
            self._rights.require(session, Action.STATUS, name, "status")
        names = params["grants"] if "grants" in params else sorted(self._broker.names)

        async def later() -> object:
            await self._rights.see_again(session, names or [None], "status")
            shown = []
            for number, name in enumerate(names, 1):
                if self._rights.allows(session, Action.STATUS, name) and name in self._broker.names:
                    shown.append(self._broker.status(name))
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
            return {"daemon": self._daemon(), "grants": shown}

        return later

    def verify(self, session: Session, params: dict[str, Any]) -> Later:
        """A request to a provider is made for it: who may bring a renewal forward may ask."""
        grant = params["grant"]
        self._rights.require(session, Action.REFRESH, grant, "verify")

        async def later() -> object:
            done = await self._broker.verify(grant, wait=params.get("wait", WAIT))
            return {
                "grant": grant,
                "access_token": done.access_token,
                "refresh_token": done.refresh_token,
                "detail": done.detail,
            }

        return later

    def _daemon(self) -> dict[str, object]:
        audit, audit_since = self._audit.trouble
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "locked": self._broker.locked,
            "store": self._store_trouble(),
            "store_since": self._broker.store.since,
            "resealing_since": self._broker.store.resealing_since,
            "audit": audit,
            "audit_since": audit_since,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }

    def _store_trouble(self) -> str | None:
        store = self._broker.store
        return "; ".join(filter(None, (None if store.adopted else NOT_ADOPTED, store.trouble))) or None
