# A request that failed a short time ago is not sent again at once (law 7): how long it waits, and how the record
# changes if nothing is sent. Pure; broker/exchanges.py asks before it sends.
from __future__ import annotations

from dataclasses import replace
from math import inf

from brokerd.core.grant import attempts, failures
from brokerd.core.grant.conclusions import Sent
from brokerd.core.grant.record import Doubt, Record
from brokerd.core.grant.renewal import Plan
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import usable
from brokerd.core.timing.backoff import LONGEST, RECHECK, retry_delay
from brokerd.core.timing.moment import Moment, seconds_until

REFUSED = "the provider refused this password before; it is not sent again until it changes"
DOUBTED = "the provider may have refused this password before; it is sent again later"


def wait_before(record: Record, sent: Sent, now: Moment) -> float:
    """Seconds until a request without a password may be sent again; 0 or less: now."""
    if record.refused_until is None or record.refused != sent.request:
        return 0.0
    # Only a Retry-After may be longer, and that stands in `retry`. A record of an earlier release may name any time.
    return min(seconds_until(record.refused_until, now), LONGEST)


def not_sent(record: Record, plan: Plan, sent: Sent, wait: float, now: Moment, *, renews: bool) -> Record:
    """The record after a try that sent nothing. `renews`: the grant's provider has refresh tokens. The password is
    checked again every few minutes: it may have changed, or another grant may have shown that it is right."""
    if sent.password is None:
        return replace(attempts.postponed(record, now, wait), refused_until=now.after(wait))
    delay = min(wait, RECHECK)
    if wait == inf:
        record = replace(record, refused=sent.password, refused_until=None)
    if plan.early:  # the refresh token still works, so the grant has not failed
        return replace(record, rotation_retry=now.after(delay))
    if renews and usable(record.refresh_token, now):
        return attempts.credentials_skipped(record, now, retry_delay(record.failures + 1, None, 0.0))
    if record.state is State.MISCONFIGURED:
        return attempts.postponed(record, now, delay)
    words = REFUSED if wait == inf else DOUBTED
    return failures.refused(attempts.begun(record), words, now, delay, record.refused, record.refused_until)


def begun(record: Record) -> Record:
    """The record of a grant whose exchange begins; it may have been misconfigured until now."""
    if record.state is State.MISCONFIGURED:
        record = attempts.again(record, can_issue=True, by_hand=False)
    return attempts.begun(record)


def password_noted(record: Record, generation: int, doubt: Doubt) -> Record | None:
    """A password that never brought tokens is about to be sent. The doubt is stored first, so that it is not sent again
    at once, even after a crash (law 7). None: the record has changed meanwhile."""
    return replace(record, doubt=doubt) if record.generation == generation else None
