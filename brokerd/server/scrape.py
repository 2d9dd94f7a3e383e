# What /metrics shows: the counters, and the gauges of the daemon, of its fleet, of grants and of providers.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from brokerd.broker import gauges
from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.core.fleet.view import EtcdState, Fleet, FleetNumbers
from brokerd.core.timing.moment import Moment
from brokerd.server.methods.status import not_adopted, trouble_of_disk
from brokerd.server.readiness_checks import checked, is_ready
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.exposition import counted, head, labelled, number
from brokerd.telemetry.metrics import COUNTER, GAUGE, GRANT, PROVIDER, Gauge, MetricRow, Metrics


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
        of_fleet = "" if broker.fleet is None else _of_fleet(broker.fleet, now)
        return of_counters + of_daemon + of_fleet + of_providers + of_grants


class SeenFleet(NamedTuple):
    """A fleet as this host sees it."""

    etcd: EtcdState
    numbers: FleetNumbers


def _of_fleet(fleet: Fleet, now: Moment) -> str:
    seen = SeenFleet(fleet.etcd_state(), fleet.numbers())
    found = "".join(
        f"{head(row.name, GAUGE, row.help)}{row.name} {number(value)}\n"
        for row in FLEET
        if (value := row.value(seen, now)) is not None
    )
    row = TRANSACTIONS
    lines = (
        f"{row.name}{labelled({'outcome': outcome})} {count}\n"
        for outcome, count in sorted(seen.numbers.transactions.items())
    )
    return found + head(row.name, row.kind, row.help) + "".join(lines)


FLEET = (
    Gauge[SeenFleet](
        "brokerd_fleet_members",
        (),
        "Hosts of the fleet whose lease lives.",
        lambda seen, _: float(seen.numbers.members),
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_etcd_up", (), "1 while etcd answers this host.", lambda seen, _: float(seen.etcd.reachable)
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_etcd_failing_since_timestamp_seconds",
        (),
        "Since when etcd does not answer this host. While it does, it is not there.",
        lambda seen, _: None if seen.etcd.reachable else seen.etcd.since,
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_etcd_full",
        (),
        "1 while etcd has no space and refuses every write (NOSPACE).",
        lambda seen, _: float(seen.etcd.full),
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_watch_lag_seconds",
        (),
        "Seconds since this host was last known to have seen every change in etcd.",
        lambda seen, _: seen.numbers.watch_lag,
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_claims",
        (),
        "Exchanges under way of which this host has the claim.",
        lambda seen, _: float(seen.numbers.claims),
    ),
    Gauge[SeenFleet](
        "brokerd_fleet_unwritten_records",
        (),
        "Records that etcd could not be told yet.",
        lambda seen, _: float(seen.etcd.unwritten),
    ),
)
TRANSACTIONS = MetricRow(
    "brokerd_fleet_transactions_total", COUNTER, ("outcome",), "Transactions of this host in etcd, by how they ended."
)
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
        lambda self, _: float(not trouble_of_disk(self.broker)[0]),
    ),
    Gauge[Scrape](
        "brokerd_store_failing_since_timestamp_seconds",
        (),
        "Since when the store cannot be written. While it can, it is not there.",
        lambda self, _: trouble_of_disk(self.broker)[1],
    ),
    Gauge[Scrape](
        "brokerd_store_adopted",
        (),
        "0 if the store was restored or copied to this machine, and brokerctl adopt has to follow.",
        lambda self, _: float(not_adopted(self.broker) is None),
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
