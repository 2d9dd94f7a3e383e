# What an exchange that brought no token does to a grant's record (laws 3, 4 and 7). Which of these functions applies to
# an outcome, and how long to wait, is decided in conclusions.py. Pure.
from __future__ import annotations

from dataclasses import replace
from typing import Any

from brokerd.core.grant.record import Record, refuses_password
from brokerd.core.grant.state import State, Trigger, move
from brokerd.core.timing.moment import Moment


def failed(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    *,
    interrupted: bool,
    since: Moment | None = None,
    sent: bytes | None = None,
    asked_to_wait: bool = False,
    costly: bool = False,
) -> Record:
    """The exchange failed and says nothing about the grant; the next try is after `delay` seconds. `interrupted`: the
    stored token that was sent at `since` may be used up (law 3). `sent`: the digest of the request. If the request
    changes it is sent at once, unless the provider `asked_to_wait`. `costly`: the answer may have cost a token, so
    `first_error` remembers it."""
    retry, is_password = now.after(delay), refuses_password(record)
    digest = None if asked_to_wait else sent
    return _failing(
        record,
        Trigger.FAILED,
        reason,
        retry=retry,
        retry_after=retry if asked_to_wait else None,
        refused=record.refused if is_password else digest,
        refused_until=None if is_password or digest is None else retry,
        interrupted=(record.interrupted or since or now) if interrupted else record.interrupted,
        first_error=record.first_error or (reason if interrupted or costly else None),
    )


def refused(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    sent: bytes | None,
    until: Moment | None = None,
    *,
    asked_to_wait: bool = False,
) -> Record:
    """A person must change something; brokerd looks again after `delay` seconds. `sent`: the digest of what was
    refused. It is not sent again before `until`, or never if that is None. `asked_to_wait`: the provider named the
    delay."""
    retry = now.after(delay)
    return _failing(
        record,
        Trigger.REFUSED,
        reason,
        retry=retry,
        retry_after=retry if asked_to_wait else None,
        refused=sent,
        refused_until=until,
    )


def rejected_once(record: Record, reason: str, now: Moment, delay: float) -> Record:
    """The provider rejected the refresh token, and may have looked into an old copy. The token is sent once more in
    `delay` seconds, near the end of the living access token (law 4)."""
    assert record.refresh_token is not None, "a refresh token that is not there cannot be rejected"
    return _failing(
        record,
        Trigger.FAILED,
        reason,
        refresh_token=replace(record.refresh_token, rejected=now),
        retry=now.after(delay),
        retry_after=None,
        refused=record.refused if refuses_password(record) else None,
        refused_until=None,
    )


def rejected(record: Record, reason: str, now: Moment, *, can_issue: bool) -> Record:
    """The refresh token is dead and is never sent again. A living access token is still served. If there is a previous
    refresh token and no other way to get tokens, that one is used next (law 3)."""
    previous = None if can_issue else record.previous_refresh
    return _failing(
        record,
        Trigger.REJECTED,
        reason,
        can_issue=can_issue or previous is not None,
        generation=record.generation + 1,
        refresh_token=previous.token if previous else None,
        interrupted=previous.interrupted if previous else None,
        previous_refresh=None,
        retry=None,
        retry_after=None,
        changed=now,
    )


def rotation_failed(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    *,
    interrupted: bool,
    since: Moment | None = None,
    password: bytes | None = None,
    asked_to_wait: bool = False,
) -> Record:
    """An issue ahead of need failed: the living refresh token is still used, and the next early issue waits.
    `password`: the digest of the one that was refused. `asked_to_wait`: the provider wants no request at all for
    `delay` seconds."""
    retry = now.after(delay)
    return replace(
        record,
        state=State.READY,
        interrupted=(record.interrupted or since or now) if interrupted else record.interrupted,
        retry=retry if asked_to_wait else record.retry,
        retry_after=retry if asked_to_wait else record.retry_after,
        rotation_retry=retry,
        rotation_failures=record.rotation_failures + 1,
        refused=password or record.refused,
        refused_until=None if password else record.refused_until,
        last_error=reason,
    )


def _failing(record: Record, event: Trigger, reason: str, *, can_issue: bool = True, **changes: Any) -> Record:
    """One more failure, and what else it changes."""
    state = move(record.state, event, can_issue=can_issue)
    return replace(record, state=state, failures=record.failures + 1, last_error=reason, **changes)
