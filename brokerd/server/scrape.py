# What /metrics shows: the counters, and the gauges of the daemon, of grants and of providers.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from brokerd.broker import gauges
from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.server.readiness_checks import checked, is_ready
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.exposition import counted, head, number
from brokerd.telemetry.metrics import GAUGE, GRANT, PROVIDER, Gauge, Metrics


@dataclass(frozen=True, slots=True)
class Scrape:
    """Writes the metrics."""

    broker: TokenBroker
    events: EventLog
    metrics: Metrics

    async def text(self, may_see: Callable[[str], bool]) -> str:
        """The metrics of the daemon, of the grants that the reader may see, and of the providers of these."""
        broker, providers, seen = self.broker, dict[str, Provider](), set[str]()

        def shown(grant: LiveGrant) -> LiveGrant | None:
            if not may_see(grant.name):
                return None
            providers[grant.provider.name] = grant.provider
            seen.add(grant.name)
            return grant

        def shows(labels: Mapping[str, str]) -> bool:
            provider, grant = labels.get(PROVIDER), labels.get(GRANT)
            return (provider is None or provider in providers) and (grant is None or grant in seen)

        if broker.locked:
            statuses = broker.locked_grants.statuses
            of_grants = gauges.of_locked(each for name, each in statuses.items() if may_see(name))
        else:
            live = tuple(broker.grants.values())
            of_grants = await gauges.of_grants(map(shown, live), broker.schedule.at, broker.now)
        now = broker.now()
        of_daemon = "".join(
            f"{head(row.name, GAUGE, row.help)}{row.name} {number(value)}\n"
            for row in DAEMON
            if (value := row.value(self, now)) is not None
        )
        of_providers = gauges.of_providers([providers[name] for name in sorted(providers)], now)
        of_counters = "".join(counted(self.metrics.registry.collect(), shows))
        return of_counters + of_daemon + of_providers + of_grants


DAEMON = (
    Gauge[Scrape](
        "brokerd_ready",
        (),
        "1 while brokerd can serve tokens, as /readyz says.",
        lambda self, _: float(is_ready(checked(self.broker, self.events))),
    ),
    Gauge[Scrape](
        "brokerd_locked", (), "1 while brokerd is locked and serves nothing.", lambda self, _: float(self.broker.locked)
    ),
    Gauge[Scrape](
        "brokerd_store_up",
        (),
        "1 while the store can be written.",
        lambda self, _: float(not self.broker.store.trouble),
    ),
    Gauge[Scrape](
        "brokerd_store_failing_since_timestamp_seconds",
        (),
        "Since when the store cannot be written. While it can, it is not there.",
        lambda self, _: self.broker.store.since,
    ),
    Gauge[Scrape](
        "brokerd_store_adopted",
        (),
        "0 if the store was restored or copied to this machine, and brokerctl adopt has to follow.",
        lambda self, _: float(self.broker.store.adopted),
    ),
    Gauge[Scrape](
        "brokerd_audit_up",
        (),
        "1 while the audit log can be written, or is switched off.",
        lambda self, _: float(self.events.audit_trouble[0] is None),
    ),
    Gauge[Scrape](
        "brokerd_audit_failing_since_timestamp_seconds",
        (),
        "Since when the audit log cannot be written. While it can, it is not there.",
        lambda self, _: self.events.audit_trouble[1],
    ),
)
