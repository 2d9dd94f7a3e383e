# What the beginning of an exchange, and each change of the time of the next one, do to a record. Pure.
from __future__ import annotations

from dataclasses import replace

from brokerd.core.exchange.outcomes import Cause
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State, Trigger, move
from brokerd.core.timing.moment import Moment


def begun(record: Record) -> Record:
    """An exchange for a token begins. This is in memory only: the journal has it on the disk."""
    return replace(record, state=move(record.state, Trigger.BEGIN, can_issue=False))


def again(record: Record, *, can_issue: bool, by_hand: bool) -> Record:
    """A person or the clock says to try again: the grant waits no longer, but an interruption stays. What the provider
    refused is sent again only if a person says so (`by_hand`, law 7)."""
    return replace(
        record,
        state=move(record.state, Trigger.AGAIN, can_issue=can_issue or record.refresh_token is not None),
        retry=None,
        retry_after=None,
        rotation_retry=None,
        refused=None if by_hand else record.refused,
        refused_until=None if by_hand else record.refused_until,
        doubt=None if by_hand else record.doubt,
    )


def configuration_read(record: Record, *, starting: bool) -> Record:
    """The configuration was read. A reload may have changed what a person had to change, so it tries at once, unless a
    password was refused (law 7). A start changes no wait: otherwise a crash loop would send the request each time. A
    Retry-After of the provider is obeyed in any case."""
    is_known = record.refused_until is not None
    if record.state is State.RETRYING and is_known:
        return replace(record, retry=record.retry_after)
    if record.state is not State.MISCONFIGURED:
        return record
    if starting or not is_known:
        return replace(record, retry=record.retry_after)
    return replace(record, retry=record.retry_after, refused=None, refused_until=None)


def credentials_skipped(record: Record, now: Moment, delay: float) -> Record:
    """The credentials were next, but they contain a password that may not be sent: the refresh token is next."""
    return replace(record, retry=now.after(delay), failures=record.failures + 1, tried_credentials=True)


def postponed(record: Record, now: Moment, delay: float) -> Record:
    """Nothing has changed; look again after `delay` seconds."""
    return replace(record, retry=now.after(delay))


def not_begun(record: Record, reason: str, now: Moment, delay: float) -> Record:
    """The exchange that had begun in memory may not be begun now; look again after `delay` seconds. Nothing was sent,
    so this is not stored either."""
    record = reopened(record, interrupted=None)
    return replace(record, retry=now.after(delay), last_error=reason, cause=Cause.POSTPONED.label)


def needs_login_now(record: Record, reason: str) -> Record:
    """Only a login can bring tokens: there is no refresh token, and no credentials can issue tokens."""
    begun_state = move(record.state, Trigger.BEGIN, can_issue=False)
    return replace(record, state=move(begun_state, Trigger.REJECTED, can_issue=False), last_error=reason)


def reopened(record: Record, *, interrupted: Moment | None) -> Record:
    """A record that was read from the store. `interrupted`: when an exchange sent the token of this generation, if the
    journal has one without an end."""
    if record.state is State.RENEWING:
        record = replace(record, state=State.RETRYING)
    if interrupted is not None and record.interrupted is None:
        record = replace(record, interrupted=interrupted)
    return record
