# What `status` says about a grant's next exchange, if it is asked for one grant: when it comes and why then.
from __future__ import annotations

from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.planner import ExchangePlanner
from brokerd.core.grant.next_exchange import Why, why_not, why_then
from brokerd.core.ports import Store
from brokerd.core.timing.moment import Moment


def next_exchange(grant: LiveGrant, planner: ExchangePlanner, store: Store, now: Moment) -> dict[str, object]:
    """`at` is nil if nothing is planned, or if the exchange is under way."""
    plan, running = planner.by_itself(grant, now), grant.running
    if running is not None:
        return _shown(str(running.operation), None, Why.RUNNING, str(running.target) if running.target else None)
    pace = grant.settings.pace
    if plan is None:
        about = {"blocked": bool(grant.blocked), "unstored": grant.unstored, "adopted": store.adopted}
        return _shown(None, None, why_not(grant.record, pace, can_issue=grant.can_issue(), **about))
    shut = grant.provider.breaker.wait(now)
    found = why_then(grant.record, plan, grant.settings.requested, pace, shut, now)
    return _shown(str(plan.operation), now.wall + plan.delay, found, str(plan.target) if plan.target else None)


def nothing_while_locked() -> dict[str, object]:
    return _shown(None, None, Why.LOCKED)


def _shown(operation: str | None, at: float | None, why: Why, target: str | None = None) -> dict[str, object]:
    at = None if at is None else round(at, 2)
    return {"operation": operation, "at": at, "target": target, "reason": why.code, "detail": why.words}
