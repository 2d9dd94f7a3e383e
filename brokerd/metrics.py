# What is counted, in Prometheus' terms. Where the numbers are shown is a later matter; labels never hold a secret.
from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class Metrics:
    """The daemon's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        gets = Counter("brokerd_gets", "Fetches answered, by how", ["result"], registry=registry)
        self.gets_cached = gets.labels("cached")
        self.gets_waited = gets.labels("waited")
        self.gets_failed = gets.labels("failed")
        self.denials = Counter("brokerd_denials", "Requests refused by the rules", registry=registry)
        self.connections = Counter("brokerd_connections", "Connections accepted", registry=registry)
        self.refusals = Counter("brokerd_refusals", "Connections refused as too many", registry=registry)
        self.protocol_errors = Counter(
            "brokerd_protocol_errors", "Connections closed over bad input", registry=registry
        )
        self.exchanges = Counter(
            "brokerd_exchanges", "Exchanges ended", ["provider", "operation", "outcome"], registry=registry
        )
        self.store_failures = Counter("brokerd_store_failures", "Writes that the store refused", registry=registry)
