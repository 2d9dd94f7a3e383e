# An answer of the method `overview` as a daemon gives it after a night, for tests of the page: NOW is the moment of the
# answer. One grant is in trouble for each reason that there is; the others work.
from __future__ import annotations

from typing import Any

NOW = 1_795_921_800.0  # a Saturday, 03:10 UTC
HOUR = 3_600.0
REASON = "idp.example did not answer within 10 s (tried at 203.0.113.7:443)"


def row(at: float, outcome: str = "issued", **more: Any) -> dict[str, Any]:
    """A row of a grant's history."""
    found = {"at": at, "last": at, "count": 1, "seconds": 0.183, "operation": "renew", "outcome": outcome}
    return {**found, "reason": None, "request_id": None, "target": None, **more}


def grant(name: str = "app", **more: Any) -> dict[str, Any]:
    """One that works: renewed 20 minutes ago, with an hour to live."""
    issued = more.pop("issued_at", NOW - 1_200)
    found = {
        "name": name,
        "provider": "idp",
        "state": "ready",
        "issued_at": issued,
        "expires_at": None if issued is None else issued + HOUR,
        "next_renewal_at": None if issued is None else issued + HOUR * 0.66,
        "scope": None,
        "scope_dropped": [],
        "fields": [],
        "refresh_expires_at": None,
        "generation": 9,
        "renewals": 17,
        "failures": 0,
        "interrupted": None,
        "unstored": False,
        "last_error": None,
        "failing_since": None,
        "revoked_at": None,
        "notes": [],
        "remedy": None,
        "advice": None,
        "pending_revocations": 0,
        "variants": 0,
        "history": [] if issued is None else [row(issued - number * 2_376) for number in range(18)],
    }
    return found | more


def failing(name: str, since: float, **more: Any) -> dict[str, Any]:
    """One whose provider does not answer."""
    last = NOW - 70
    failed = row(since, "postponed", last=last, count=9, reason=REASON)
    base = grant(name, issued_at=since - 2_300, provider="slow")
    return base | {
        "state": "retrying",
        "failures": 9,
        "last_error": REASON,
        "failing_since": since,
        "next_renewal_at": NOW + 95,
        "history": [failed, *base["history"]][:20],
        **more,
    }


def provider(name: str = "idp", **more: Any) -> dict[str, Any]:
    found = {"name": name, "breaker_open_until": None, "failures": 0, "failing_since": None, "cause": None}
    found |= {
        "last_ok_at": NOW - 60,
        "unanswered_since": None,
        "latency_p50": 0.083,
        "latency_p99": 0.412,
        "latency_of": 64,
    }
    return found | {"busy": 0, "queued": 0, "concurrency": 8} | more


def event(at: float, what: str = "renewed", grant: str | None = "app", **more: Any) -> dict[str, Any]:
    found = {"at": at, "event": what, "grant": grant, "provider": "idp", "outcome": "issued", "reason": None}
    return {**found, "who": None, "count": 1, **more}


def overview(grants: list[dict[str, Any]], **daemon: Any) -> dict[str, Any]:
    states: dict[str, int] = {}
    for each in grants:
        states[each["state"]] = states.get(each["state"], 0) + 1
    own = {"version": "0.9.0", "pid": 4711, "started_at": NOW - 86_400 * 3, "locked": False, "store": None}
    own |= {
        "store_since": None,
        "resealing_since": None,
        "audit": None,
        "audit_since": None,
        "tasks": 12,
        "fleet": None,
    }
    away = provider("slow", failures=9, failing_since=NOW - 1_500, cause="unanswered", breaker_open_until=NOW + 40)
    return {
        "daemon": own | daemon,
        "states": states,
        "grants": grants,
        "providers": [provider(), away | {"queued": 3, "latency_p50": 10.0, "latency_p99": 10.0}],
        "events": [
            event(NOW - 70, "renewal failed", "crm", outcome="postponed", reason=REASON, provider="slow", count=9),
            event(NOW - 1_200),
            event(NOW - 4_000, "reloaded", None, provider=None, outcome=None, who="root"),
        ],
    }


def night(number: int = 40) -> dict[str, Any]:
    """A bad night."""
    grants = [
        grant(
            "billing",
            state="needs_login",
            issued_at=None,
            remedy="brokerctl login billing",
            provider="idp",
            last_error="the refresh token is dead (400 invalid_grant: token expired)",
            failures=1,
            failing_since=NOW - 3 * HOUR,
            history=[
                row(NOW - 3 * HOUR, "rejected", reason="400 invalid_grant: token expired"),
                *(row(NOW - 4 * HOUR - each * 2_400) for each in range(12)),
            ],
        ),
        failing("crm", NOW - 1_500),
        failing("erp", NOW - 3_600, expires_at=NOW - 1_000, issued_at=None),
        grant(
            "mail",
            state="misconfigured",
            issued_at=None,
            failures=4,
            failing_since=NOW - 600,
            next_renewal_at=NOW + 300,
            last_error="the provider refused the client (401 invalid_client). Check "
            "client_id, client_secret (/etc/brokerd/secrets/mail) and client_auth (client_secret_basic was used).",
            history=[row(NOW - 600, "misconfigured", last=NOW - 30, count=4, reason="401 invalid_client")],
        ),
        grant("old", state="revoked", issued_at=None, revoked_at=NOW - 2 * HOUR),
        grant(
            "forever", expires_at=None, next_renewal_at=None, history=[row(NOW - 5 * HOUR)], issued_at=NOW - 5 * HOUR
        ),
    ]
    outage = row(NOW - 6 * HOUR, "postponed", last=NOW - 5 * HOUR, count=14, reason=REASON)
    grants += [
        grant(
            f"reports-{each:03}",
            issued_at=NOW - 97 * each % 2_300,
            history=[
                *(row(NOW - 97 * each % 2_300 - part * 2_376) for part in range(7)),
                outage,
                *(row(NOW - 97 * each % 2_300 - part * 2_376) for part in range(10, 17)),
            ],
        )
        for each in range(number - len(grants))
    ]
    return overview(grants)
