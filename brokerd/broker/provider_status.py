# What `status` shows of one provider (docs/protocol.md). Nothing in it is about a grant, and no secret is in it.
from __future__ import annotations

from brokerd.broker.provider import Provider
from brokerd.core.exchange.health import percentile
from brokerd.core.timing.moment import Moment, wall_time


def provider_status(provider: Provider, now: Moment) -> dict[str, object]:
    """`busy` and `queued` are counts only: the caller may not know the names."""
    health, breaker = provider.health, provider.breaker
    left = breaker.wait(now)
    return {
        "name": provider.name,
        "breaker_open_until": round(now.wall + left, 2) if left > 0 else None,
        "failures": breaker.failures,
        "failing_since": wall_time(health.failing_since, now) if health.failing_since else None,
        "cause": health.cause.label if health.cause else None,
        "last_ok_at": wall_time(health.last_ok, now) if health.last_ok else None,
        "unanswered_since": wall_time(late, now) if (late := provider.unanswered_since(now)) else None,
        "latency_p50": percentile(health.times, 0.5),
        "latency_p99": percentile(health.times, 0.99),
        "latency_of": len(health.times),
        "busy": provider.busy,
        "queued": len(provider.queue),
        "concurrency": provider.settings.concurrency,
    }
