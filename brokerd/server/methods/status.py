# hello, status, verify: how grants and the daemon are, and what a provider says of a grant's tokens. No answer contains
# a secret.
from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any

import trio

from brokerd import __version__
from brokerd.broker.broker import TokenBroker
from brokerd.broker.next_exchange import next_exchange, nothing_while_locked
from brokerd.broker.provider import Provider
from brokerd.broker.provider_status import provider_status
from brokerd.core.access.admission import LOOK
from brokerd.core.access.policy import Action
from brokerd.core.grant.history import newest_first
from brokerd.server.methods import parameters as p
from brokerd.server.methods.method import MAX_IN_FLIGHT, AnswerLater
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.server.shared_tokens import SharedTokens
from brokerd.telemetry.event_log import EventLog

PROTOCOL = 1
MAX_MESSAGE = 64 * 1024  # bytes
TURN = 50  # grants that one status collects before other callers have their turn
NOT_ADOPTED = "the store was restored or copied to this machine, so no stored token is sent; brokerctl adopt"
FLEET_NOT_ADOPTED = (
    "etcd is another one than before, or was restored from a snapshot, so no stored token is sent; brokerctl adopt"
)


def not_adopted(broker: TokenBroker) -> str | None:
    """Why no stored token is sent, with the remedy; None: stored tokens may be sent."""
    if broker.fleet is not None and not broker.fleet.etcd_state().adopted:
        return FLEET_NOT_ADOPTED
    return None if broker.store.adopted else NOT_ADOPTED


def trouble_of_disk(broker: TokenBroker) -> tuple[str | None, float | None]:
    """What is wrong with the store on this host, and since when. What is wrong with etcd is told apart from it."""
    return (broker.store.trouble, broker.store.since) if broker.fleet is None else broker.fleet.own_trouble()


class StatusMethods:
    """`http_socket`: the path of the HTTP socket, if there is one."""

    def __init__(
        self,
        broker: TokenBroker,
        rights: Rights,
        events: EventLog,
        shared: SharedTokens,
        http_socket: str | None = None,
    ) -> None:
        self._broker = broker
        self._rights = rights
        self._events = events
        self._shared = shared
        self._http_socket = http_socket
        self._started_at = round(time.time(), 2)

    def hello(self, _session: CallerSession, _params: dict[str, Any]) -> dict[str, object]:
        return {
            "server": __version__,
            "protocol": PROTOCOL,
            "max_message": MAX_MESSAGE,
            "max_in_flight": MAX_IN_FLIGHT,
            "http_socket": self._http_socket,
        }

    def cost(self, params: dict[str, Any]) -> float:
        return LOOK * (len(params["grants"]) if "grants" in params else len(list(self._broker.names)))

    def status(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        for name in params.get("grants", ()):
            self._rights.require(session, Action.STATUS, name, "status")
        if with_history := params.get("history", False):
            p.names("status: grants, with history", params.get("grants"))
        names = params["grants"] if "grants" in params else sorted(self._broker.names)

        @AnswerLater
        async def answer() -> object:
            await self._rights.look_again(session, names or [None], "status")
            shown, providers = list[dict[str, object]](), dict[str, Provider]()
            for number, name in enumerate(names, 1):
                if self._rights.allows(session, Action.STATUS, name) and name in self._broker.names:
                    more = {"next": self._next(name), "history": self.history(name)} if with_history else {}
                    shown.append(self.of_grant(name) | more)
                    if (grant := self._broker.grants.get(name)) is not None:  # none are there while brokerd is locked
                        providers[grant.provider.name] = grant.provider
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
            seen = [provider_status(providers[name], self._broker.now()) for name in sorted(providers)]
            return {"daemon": self.daemon(), "grants": shown, "providers": seen}

        return answer

    def of_grant(self, name: str) -> dict[str, object]:
        fleet = self._broker.fleet
        renewer = None if fleet is None else fleet.renewer(name)
        return self._broker.status(name) | {"shared": self._shared.count(name), "renewer": renewer}

    def _fleet(self) -> dict[str, object] | None:
        fleet = self._broker.fleet
        return None if fleet is None else {"fleet": fleet.fleet_name, "host": fleet.host, **asdict(fleet.etcd_state())}

    def history(self, name: str) -> list[dict[str, object]]:
        """How its last exchanges ended. While brokerd is locked, that is not known."""
        grant = self._broker.grants.get(name)
        return newest_first(grant.history) if grant else []

    def _next(self, name: str) -> dict[str, object]:
        """What comes next, and why then."""
        broker, grant = self._broker, self._broker.grants.get(name)
        if grant is None:
            return nothing_while_locked()
        return next_exchange(grant, broker.planner, broker.store, broker.now())

    async def verify(self, _session: CallerSession, params: dict[str, Any]) -> object:
        """It sends a request to the provider, so it takes the same right as a refresh."""
        done = await self._broker.verify(params["grant"], wait=params.get("wait", p.WAIT))
        return {"grant": params["grant"], **asdict(done)}

    def daemon(self) -> dict[str, object]:
        (trouble, since), (audit, audit_since) = trouble_of_disk(self._broker), self._events.audit_trouble
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "locked": self._broker.locked,
            "store": "; ".join(filter(None, (not_adopted(self._broker), trouble))) or None,
            "store_since": since,
            "resealing_since": self._broker.store.resealing_since,
            "fleet": self._fleet(),
            "audit": audit,
            "audit_since": audit_since,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }
