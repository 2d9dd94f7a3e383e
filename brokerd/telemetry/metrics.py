# What is counted and timed, one row for each metric; docs/metrics.md says the same to people. Rows of what is true when
# somebody looks are in broker/gauges.py and server/scrape.py. No label holds a secret, or the name of a caller.
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import prometheus_client as prometheus

from brokerd.core.audit.findings import AuditFinding
from brokerd.core.timing.moment import Moment

COUNTER, HISTOGRAM, GAUGE = "counter", "histogram", "gauge"
KINDS: dict[str, Any] = {COUNTER: prometheus.Counter, HISTOGRAM: prometheus.Histogram, GAUGE: prometheus.Gauge}
PROVIDER = "provider"  # the label by which a series belongs to a provider,
GRANT = "grant"  # or to a grant
T = TypeVar("T")


class Gauge(NamedTuple, Generic[T]):
    """What is true of a T at the moment of a scrape. A value of None has no line."""

    name: str
    labels: tuple[str, ...]
    help: str
    value: Callable[[T, Moment], float | None]


class MetricRow(NamedTuple):
    """One metric. `buckets`: of a histogram, in seconds."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


EXCHANGE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
COMMIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
WAIT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (
    MetricRow("brokerd_gets_total", COUNTER, ("outcome",), "Requests for a token: cached, waited or failed."),
    MetricRow("brokerd_get_wait_seconds", HISTOGRAM, (), "Time of requests that found no living token at once.", WAIT),
    MetricRow("brokerd_denials_total", COUNTER, (), "Requests that the rules refused."),
    MetricRow(
        "brokerd_exchanges_total",
        COUNTER,
        (PROVIDER, "operation", "outcome"),
        "Exchanges with a provider that ended, by how.",
    ),
    MetricRow(
        "brokerd_exchange_duration_seconds",
        HISTOGRAM,
        (PROVIDER,),
        "Time of exchanges, from the first request to the end; logins are left out.",
        EXCHANGE,
    ),
    MetricRow("brokerd_store_failures_total", COUNTER, (), "Writes that the store refused."),
    MetricRow(
        "brokerd_store_commit_duration_seconds",
        HISTOGRAM,
        (),
        "Time until a group of writes was durable, or had failed.",
        COMMIT,
    ),
    MetricRow(
        "brokerd_audit_findings_total",
        COUNTER,
        ("kind",),
        "What the audit log found wrong with itself: changed, incomplete or lost.",
    ),
    MetricRow("brokerd_connections_total", COUNTER, (), "Connections accepted at the Unix sockets."),
    MetricRow("brokerd_connections_refused_total", COUNTER, (), "Connections refused because there were too many."),
    MetricRow("brokerd_protocol_errors_total", COUNTER, (), "Connections closed because of bad input."),
    MetricRow(
        "brokerd_proxied_requests_total",
        COUNTER,
        (GRANT, "status"),
        "Requests that proxies forwarded with a token of the grant, by the class of the answer.",
    ),
    MetricRow(
        "brokerd_proxied_bytes_total",
        COUNTER,
        (GRANT, "direction"),
        "Bytes that proxies forwarded for clients: up from them, down to them.",
    ),
    MetricRow("brokerd_shared_tokens", GAUGE, (), "Shared tokens that callers can read now."),
    MetricRow("brokerd_shared_token_writes_total", COUNTER, (), "Tokens that were written to shared tokens."),
    MetricRow("brokerd_build_info", GAUGE, ("version",), "1, with the version of brokerd."),
)


class Metrics:
    """The daemon's counters, in a registry of their own.

    Many attributes: each is one metric, so that counting is one call."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry(auto_describe=False)
        made = {row.name: self._make(row) for row in ROWS}
        gets = made["brokerd_gets_total"]
        self.gets_cached, self.gets_waited = gets.labels("cached"), gets.labels("waited")
        self.gets_failed = gets.labels("failed")
        self.get_wait = made["brokerd_get_wait_seconds"]
        self.denials = made["brokerd_denials_total"]
        self.exchanges = made["brokerd_exchanges_total"]
        self.exchange_duration = made["brokerd_exchange_duration_seconds"]
        self.store_failures = made["brokerd_store_failures_total"]
        self.store_commits = made["brokerd_store_commit_duration_seconds"]
        self.audit_findings = made["brokerd_audit_findings_total"]
        for kind in AuditFinding:
            self.audit_findings.labels(kind)
        self.connections = made["brokerd_connections_total"]
        self.refusals = made["brokerd_connections_refused_total"]
        self.protocol_errors = made["brokerd_protocol_errors_total"]
        self.proxied = made["brokerd_proxied_requests_total"]
        self.proxied_bytes = made["brokerd_proxied_bytes_total"]
        self.shared_tokens = made["brokerd_shared_tokens"]
        self.shared_token_writes = made["brokerd_shared_token_writes_total"]
        self.build = made["brokerd_build_info"]

    def _make(self, row: MetricRow) -> Any:
        more = {"buckets": row.buckets} if row.buckets else {}
        return KINDS[row.kind](row.name, row.help, row.labels, registry=self.registry, **more)
