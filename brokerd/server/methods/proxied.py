# proxied: what a proxy tells of the requests that it forwarded with a grant's token. brokerd writes it to the audit log
# and counts it. It is the proxy's word, and the entry says whose.
from __future__ import annotations

from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import Action
from brokerd.server.methods.parameters import target_of
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

WHO = ("uid", "user", "unit", "exe")


class ProxiedMethod:
    def __init__(self, broker: TokenBroker, rights: Rights, events: EventLog, metrics: Metrics) -> None:
        self._broker = broker
        self._rights = rights
        self._events = events
        self._metrics = metrics

    def proxied(self, session: CallerSession, params: dict[str, Any]) -> object:
        """Only a caller that may have the token can have forwarded requests with it."""
        grant, target = params["grant"], target_of(params)
        self._rights.require(session, Action.GET, grant, "proxied", target)
        self._broker.grant(grant)  # raises Failure: there is none of that name
        for use in params["uses"]:
            client = {name: use[name] for name in WHO if name in use}
            said = {name: value for name, value in use.items() if name not in WHO}
            self._events.proxied(grant, session.caller, client, said)
            status = f"{use['status'] // 100}xx" if use["status"] else "none"
            self._metrics.proxied.labels(grant, status).inc(use["requests"])
            self._metrics.proxied_bytes.labels(grant, "up").inc(use["up"])
            self._metrics.proxied_bytes.labels(grant, "down").inc(use["down"])
        return {"noted": len(params["uses"])}
