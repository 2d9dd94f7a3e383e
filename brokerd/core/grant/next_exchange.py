# Why a grant's next exchange comes when it does, or why none comes: for people, who ask what brokerd waits for.
# renewal.py decides it; this only names which of its reasons counts. Pure.
from __future__ import annotations

from enum import Enum

from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation, Pace, Plan, sent_again_after
from brokerd.core.grant.state import State
from brokerd.core.timing.moment import Moment, seconds_until

CLOSE = 1.0  # seconds; reasons that end so close to each other are one moment for people


class Why(Enum):
    """`code` is for programs (docs/protocol.md), `words` for people."""

    RUNNING = ("running", "an exchange is under way")
    LIFETIME = ("lifetime", "then about two thirds of the token's life have passed")
    DUE = ("due", "it is due")
    BACKOFF = ("backoff", "brokerd waits longer after each failure, until a program asks or the token ends")
    RETRY_AFTER = ("retry_after", "the provider named that time (Retry-After)")
    BREAKER = ("breaker", "the provider is down, and one request tries then whether it is back")
    INTERRUPTED = (
        "interrupted",
        "the refresh token may be used up, so it is sent again only near the end of the token's life",
    )
    CONFIRMATION = ("confirmation", "the refresh token was rejected once, and the last try is near the end of its life")
    REFRESH_TOKEN = ("refresh_token", "the refresh token is replaced before it ends")
    SCOPE = ("scope", "the configuration asks for another scope, audience or resource than the token has")
    DOWNSCOPED = ("downscoped", "a downscoped token is renewed")
    REVOCATION = ("revocation", "the provider is still to be told of a revocation")
    ON_DEMAND = ("on_demand", "it is renewed when a program asks (on_demand = true)")
    NOTHING_DUE = ("nothing_due", "its token does not have to be renewed")
    BLOCKED = ("blocked", "nothing can be done until an operator has changed what the error names")
    LOGIN = ("login", "only a login or an import can bring another token")
    REVOKED = ("revoked", "it is revoked")
    UNSTORED = ("unstored", "its newest tokens must be stored first")
    NOT_ADOPTED = ("not_adopted", "the store was restored or copied to this machine; to go on: brokerctl adopt")
    LOCKED = ("locked", "brokerd is locked; to unlock: brokerctl unlock")

    def __init__(self, code: str, words: str) -> None:
        self.code = code
        self.words = words


def why_then(record: Record, plan: Plan, requested: str, pace: Pace, shut: float, now: Moment) -> Why:
    """Why the planned exchange comes in `plan.delay` seconds. `requested`: what the configuration asks tokens for;
    `shut`: seconds until the provider's breaker lets a request through."""
    counts = max(plan.delay - CLOSE, 0.0)
    if plan.operation is Operation.REVOKE:
        return Why.REVOCATION
    if shut > counts:
        return Why.BREAKER
    if plan.target is not None:
        return Why.DOWNSCOPED
    if _seconds(record.retry_after, now) > counts:
        return Why.RETRY_AFTER
    if _seconds(record.retry, now) > counts:
        is_rejected = record.refresh_token is not None and record.refresh_token.rejected is not None
        return Why.CONFIRMATION if is_rejected else Why.BACKOFF
    if plan.operation is Operation.RENEW and sent_again_after(record, pace, now) > counts:
        return Why.INTERRUPTED
    if record.access_token is not None and record.requested != requested:
        return Why.SCOPE
    if plan.early:
        return Why.REFRESH_TOKEN
    return Why.LIFETIME if plan.delay > 0 else Why.DUE


def why_not(record: Record, pace: Pace, *, blocked: bool, unstored: bool, adopted: bool, can_issue: bool) -> Why:
    """Why no exchange is planned."""
    if blocked:
        return Why.BLOCKED
    if record.state is State.REVOKED:
        return Why.REVOKED
    if record.state is State.NEEDS_LOGIN or (record.refresh_token is None and not can_issue):
        return Why.LOGIN
    if not adopted:
        return Why.NOT_ADOPTED
    if unstored:
        return Why.UNSTORED
    return Why.ON_DEMAND if pace.on_demand else Why.NOTHING_DUE


def _seconds(moment: Moment | None, now: Moment) -> float:
    return 0.0 if moment is None else seconds_until(moment, now)
