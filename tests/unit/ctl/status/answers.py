# Answers of the method `status` at one moment, for the pictures of brokerctl status: a bad night in a small company.
from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from tests.fleet_of_two import AWAY

NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

DAEMON = {
    "version": "0.3.0",
    "pid": 1676,
    "started_at": NOW - 3 * DAY,
    "locked": False,
    "store": None,
    "store_since": None,
    "resealing_since": None,
    "audit": None,
    "audit_since": None,
    "tasks": 10,
    "fleet": None,
}
WELL = {
    "state": "ready",
    "provider": "corp",
    "issued_at": NOW - 20 * MINUTE,
    "expires_at": NOW + 40 * MINUTE,
    "next_renewal_at": NOW + 21 * MINUTE,
    "scope": None,
    "scope_dropped": [],
    "fields": [],
    "refresh_expires_at": None,
    "generation": 7,
    "renewals": 6,
    "failures": 0,
    "interrupted": None,
    "unstored": False,
    "last_error": None,
    "failing_since": None,
    "revoked_at": None,
    "notes": [],
    "remedy": None,
    "pending_revocations": 0,
    "variants": 0,
    "shared": 0,
}
NOTHING = {"issued_at": None, "expires_at": None, "next_renewal_at": None}


def grant(name: str, **about: Any) -> dict[str, Any]:
    return {"name": name, **WELL, **about}


def answer(*grants: dict[str, Any], providers: tuple[dict[str, Any], ...] = (), **daemon: Any) -> dict[str, Any]:
    return {"daemon": {**DAEMON, **daemon}, "grants": list(grants), "providers": list(providers)}


def provider(name: str, **about: Any) -> dict[str, Any]:
    well = {"breaker_open_until": None, "failures": 0, "failing_since": None, "cause": None, "last_ok_at": NOW - 5}
    latency = {"latency_p50": 0.03, "latency_p99": 0.2, "latency_of": 64}
    return {"name": name, **well, **latency, "busy": 0, "queued": 0, "concurrency": 4, **about}


PAYMENTS = grant(
    "payments",
    provider="treezor",
    state="misconfigured",
    **NOTHING,
    failures=7,
    failing_since=NOW - 4 * MINUTE - 20,
    last_error=(
        "the provider refused the client (401 invalid_client). Check client_id, client_secret "
        "(/etc/brokerd/secrets/payments) and client_auth (client_secret_basic was used)."
    ),
)
ORDERS = grant(
    "shop-orders",
    provider="occam",
    state="needs_login",
    expires_at=NOW + 12 * MINUTE + 3,
    issued_at=NOW - 48 * MINUTE,
    next_renewal_at=None,
    failures=1,
    failing_since=NOW - 31 * MINUTE,
    last_error="the refresh token was rejected (400 invalid_grant)",
    remedy="brokerctl login shop-orders",
)
REPORTS = grant(
    "reports",
    state="retrying",
    expires_at=NOW + 9 * MINUTE + 30,
    issued_at=NOW - 50 * MINUTE - 30,
    next_renewal_at=NOW + 24,
    failures=12,
    failing_since=NOW - 9 * MINUTE,
    last_error="connect: connection refused",
    advice="brokerctl doctor shows what keeps this machine from the provider; brokerd tries again by itself",
)
LEDGER = grant("ledger", unstored=True)
READY = (
    grant("mailings", provider="click2mail", refresh_expires_at=NOW + 29 * DAY + 23 * HOUR),
    grant("ix-api-prod", provider="ix", expires_at=NOW + 58 * MINUTE + 18, issued_at=NOW - MINUTE),
    grant("api-key", provider="maps", expires_at=None, next_renewal_at=None),
    grant("on-demand", **NOTHING),
    grant("a-name-that-is-much-longer-than-others-and-still-is-a-name", scope_dropped=["write"]),
)
OLD = grant(
    "old-crm", provider="crm", state="revoked", **NOTHING, revoked_at=NOW - 3 * DAY, remedy="brokerctl login old-crm"
)
DOWN = provider("corp", breaker_open_until=NOW + 24, failing_since=NOW - 9 * MINUTE, failures=12, cause="unreachable")
NIGHT = answer(*READY, OLD, LEDGER, REPORTS, ORDERS, PAYMENTS, providers=(DOWN, provider("ix")))
QUIET = answer(READY[0])
LOCKED = answer(
    *({**each, **NOTHING, "state": "locked", "remedy": "brokerctl unlock"} for each in (ORDERS, READY[0])), locked=True
)


def exchange(ago: float, operation: str, outcome: str, seconds: float, **about: Any) -> dict[str, Any]:
    once = {"at": NOW - ago, "last": NOW - ago, "count": 1, "reason": None, "request_id": None, "target": None}
    return {**once, "operation": operation, "outcome": outcome, "seconds": seconds, **about}


PAST = [
    exchange(50 * MINUTE + 30, "renew", "issued", 0.231, request_id="5f2c9a1e"),
    exchange(90_040, "issue", "declined", 12.25, reason="400 invalid_scope", target="scope write"),
    exchange(90_540, "login", "issued", 1.5),
]
REFUSED = exchange(
    9 * MINUTE,
    "renew",
    "postponed",
    0.004,
    last=NOW - 36,
    count=12,
    reason="connect: connection refused",
    request_id="5f2c9a1f",
)
TRIES = {
    "operation": "renew",
    "at": NOW + 24,
    "target": None,
    "reason": "breaker",
    "detail": "the provider is down, and one request tries then whether it is back",
}
RENEWS = {
    **TRIES,
    "at": NOW + 21 * MINUTE,
    "reason": "lifetime",
    "detail": "then about two thirds of its life are over",
}
FAILING_GRANT = answer(
    {**REPORTS, "scope": ["read", "write"], "history": [REFUSED, *PAST], "next": TRIES}, providers=(DOWN,)
)
WELL_GRANT = answer(
    {**READY[0], "fields": ["instance_url"], "variants": 2, "shared": 3, "history": PAST[:1], "next": RENEWS},
    providers=(provider("click2mail"),),
)
ETCD = asdict(replace(AWAY, since=NOW - 4 * MINUTE, trouble="https://10.0.0.1:2379: connection refused"))
FLEET = {"fleet": {"fleet": "prod", "host": "web-1", **ETCD}}
IN_FLEET = answer({**READY[0], "renewer": "web-2"}, {**READY[1], "renewer": "web-1"}, **FLEET)
