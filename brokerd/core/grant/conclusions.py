# What the end of an exchange does to its grant's record (laws 2, 3, 4, 7), and what it says about the password that was
# sent. Pure: time and chance are arguments. broker/exchanges.py makes the result durable.
from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from brokerd.core.exchange.outcomes import (
    Blame,
    Cause,
    Declined,
    Issued,
    IssuedToken,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Tokens,
)
from brokerd.core.grant import downscoped, failures, issuance
from brokerd.core.grant import record as records
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import Doubt, Record
from brokerd.core.grant.renewal import Operation, Pace, Plan, confirmed_in
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import (
    AccessToken,
    RefreshToken,
    alive,
    new_access_token,
    new_refresh_token,
    usable,
    with_jitter,
)
from brokerd.core.timing.backoff import FIRST, HOUR, LONGEST_AHEAD, RECHECK, SPREAD, doubted_delay, retry_delay
from brokerd.core.timing.moment import Moment, seconds_until

DOUBTFUL = (400, 401, 403, 422)  # some servers answer a wrong password so, in a form of their own (law 7)


@dataclass(frozen=True, slots=True)
class Sent:
    """Digests of what an exchange sends: `request`, of everything that the request is made of, and `password`, of the
    credentials, if they contain a user's password. `earlier`: what was known about that password before."""

    request: bytes
    password: bytes | None = None
    earlier: Doubt | None = None

    @property
    def times(self) -> int:
        """How often in a row the password was sent and perhaps refused, this time included."""
        return self.earlier.times + 1 if self.earlier else 1

    def doubt(self, now: Moment, delay: float) -> Doubt:
        assert self.password is not None, "only a password is doubted"
        return Doubt(self.password, self.request, self.times, now.after(delay))


@dataclass(frozen=True, slots=True)
class Ending:
    """How an exchange ended. `generation`: of the record when the exchange began; `at`: when the last request left;
    `status`: of the last answer. `sends_stored`: it sent a stored token. If `sent` is None, nothing was sent.
    `seconds`: how long it took."""

    plan: Plan
    generation: int
    outcome: Outcome
    at: Moment
    status: int | None = None
    sends_stored: bool = False
    sent: Sent | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Terms:
    """The part of the grant's configuration that a conclusion depends on. `own`: what its own tokens are for.
    `in_credentials`: its token is itself a credential. `jitter`: of the access token that came, where it is not the
    one that was drawn (core/grant/renewal_load.py)."""

    requested: str
    own: Target
    can_issue: bool
    pace: Pace
    in_credentials: bool = False
    jitter: float | None = None


class Verdict(Enum):
    """What an ending says about the password that was sent."""

    NOTHING = "nothing"
    ACCEPTED = "accepted"
    DOUBTED = "doubted"  # perhaps refused: the provider did not say it in the protocol's terms
    REFUSED = "refused"


def verdict(ending: Ending) -> Verdict:
    """About the password (law 7). `invalid_client` never blames it."""
    if ending.sent is None or ending.sent.password is None:
        return Verdict.NOTHING
    match ending.outcome:
        case Issued():
            return Verdict.ACCEPTED
        case Rejected() | Misconfigured(blames=Blame.PASSWORD):
            return Verdict.REFUSED
        case RetryLater(cause=Cause.SILENT):
            return Verdict.DOUBTED
        case Misconfigured(blames=Blame.REQUEST) | RetryLater(cause=Cause.STRANGE) if ending.status in DOUBTFUL:
            return Verdict.DOUBTED
    return Verdict.NOTHING


def concluded(record: Record, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record | None:
    """The record after the exchange. None: it does not change, because the exchange began with an older generation."""
    changed = _changed(record, ending, terms, now, jitter)
    if changed is None:
        return None
    if not isinstance(ending.outcome, Declined):  # which says nothing about the grant
        label = ending.outcome.cause.label if isinstance(ending.outcome, RetryLater) else None
        changed = changed if changed.cause == label else replace(changed, cause=label)
    return records.with_failing_since(record, changed, now)


def _changed(record: Record, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record | None:
    outcome = ending.outcome
    if record.generation != ending.generation:
        if isinstance(outcome, Issued) and record.state is State.REVOKED:
            return revocations.came_late(record, outcome.tokens, ending.at)
        return None
    if ending.sent is not None and ending.sent.password is not None:
        # The doubt was stored before the password was sent. An ending that says nothing restores what was known.
        record = replace(record, doubt=ending.sent.earlier if verdict(ending) is Verdict.NOTHING else None)
    by_credentials = ending.plan.operation is Operation.ISSUE and not ending.plan.early
    record = replace(record, tried_credentials=by_credentials and record.refresh_token is not None)
    match outcome:
        case Issued(tokens):
            return _issued(record, tokens, ending, terms, now, jitter)
        case Declined():
            return downscoped.declined(record, ending.at, sent_stored=ending.sends_stored)
        case Rejected(reason) if ending.plan.operation is Operation.RENEW:
            return _rejected(record, reason, terms, now)
        case Rejected(reason):
            return _refused(record, Misconfigured(reason), ending, terms, now, jitter)
        case Misconfigured():
            record = issuance.withdrawn(record) if terms.in_credentials else record
            return _refused(record, outcome, ending, terms, now, jitter)
        case RetryLater():
            return _failed(record, outcome, ending, terms, now, jitter)
        case _:
            raise AssertionError("an exchange for a token cannot end with Done or Unsupported")


def explained(record: Record, reason: str) -> str:
    """The reason of a rejection, with the earlier exchange that may have used up the refresh token."""
    if record.interrupted is None:
        return reason
    when = f"{revocations.EPOCH + timedelta(seconds=record.interrupted.wall):%Y-%m-%d %H:%M:%S}"
    first = f": {record.first_error}" if record.first_error else ""
    return f"{reason} (an exchange was interrupted at {when} UTC and may have used it up{first})"


# -- by outcome


def _issued(record: Record, tokens: Tokens, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record:
    plan, at = ending.plan, ending.at
    renewed = plan.operation is Operation.RENEW
    if plan.target is not None:
        changed = downscoped.issued(
            record, plan.target, tokens, at, jitter, terms.requested, terms.own, renewed=renewed
        )
        return _unless_dead(changed, record, new_access_token(tokens, at, jitter), now, jitter)
    # A renewal keeps the scope of its refresh token. If credentials can issue a token, they bring the new scope.
    requested = record.requested if renewed and terms.can_issue else terms.requested
    password = ending.sent.password if ending.sent else None
    changed = issuance.issued(record, tokens, at, jitter, requested, renewed=renewed, password=password)
    if tokens.access_token and changed.access_token and terms.jitter is not None:
        changed = replace(changed, access_token=with_jitter(changed.access_token, terms.jitter))
    changed = _unless_dead(changed, record, changed.access_token if tokens.access_token else None, now, jitter)
    if plan.early and tokens.refresh_token is None and record.refresh_token:  # issuing brings no new one
        return replace(changed, rotation_retry=now.after(HOUR * (1 + SPREAD * jitter)))
    return changed


def _unless_dead(changed: Record, before: Record, token: AccessToken | None, now: Moment, jitter: float) -> Record:
    """A token that has already expired is a failure, so that the next exchange waits."""
    if token is None or alive(token, now):
        return changed
    failures = before.failures + 1
    return issuance.issued_expired(changed, failures, now, retry_delay(failures, None, jitter), token.lifetime_warning)


def _rejected(record: Record, reason: str, terms: Terms, now: Moment) -> Record:
    """The refresh token is rejected. While a tenth of the access token's life is left and nothing is uncertain, one
    more try must confirm that. If credentials can issue new tokens without a person, the first rejection counts."""
    token = record.refresh_token
    delay = confirmed_in(record.access_token, terms.pace, now)
    is_first = token is not None and token.rejected is None and record.uncertain is None
    if is_first and delay is not None and not terms.can_issue:
        return failures.rejected_once(record, f"{reason} ({ONCE})", now, delay)
    return failures.rejected(record, explained(record, reason), now, can_issue=terms.can_issue)


def _refused(
    record: Record, outcome: Misconfigured, ending: Ending, terms: Terms, now: Moment, jitter: float
) -> Record:
    """A person must change something. The request is tried again by ordinary backoff, unless that could lock an
    account."""
    reason, after, sent, early = outcome.reason, outcome.after, ending.sent, ending.plan.early
    record = _with_saved_token(record, outcome, ending, terms, jitter)
    if (about_password := verdict(ending)) is Verdict.DOUBTED:
        return _doubted(record, reason, after, ending, now, jitter)
    if about_password is Verdict.REFUSED:
        assert sent is not None
        if early:
            return failures.rotation_failed(record, reason, now, RECHECK, interrupted=False, password=sent.password)
        return failures.refused(record, reason, now, RECHECK, sent.password)
    if early:
        delay = retry_delay(record.rotation_failures + 1, after, jitter, LONGEST_AHEAD)
        return failures.rotation_failed(record, reason, now, delay, interrupted=False, asked_to_wait=after is not None)
    delay = _delay(record, after, ending, terms, now, jitter)
    digest, until = record.refused, record.refused_until
    if sent is not None and not (sent.password is None and records.refuses_password(record)):
        digest, until = sent.request, now.after(delay)
    return failures.refused(record, reason, now, delay, digest, until, asked_to_wait=after is not None)


def _failed(record: Record, outcome: RetryLater, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record:
    """The provider or the network failed: that says nothing about the grant."""
    reason, cause, after, before = outcome.reason, outcome.cause, outcome.after, record
    record = _with_saved_token(before, outcome, ending, terms, jitter)
    touched = ending.sends_stored and cause.touched and record is before
    if verdict(ending) is Verdict.DOUBTED:
        return _doubted(record, reason, after, ending, now, jitter)
    if ending.plan.early:
        delay = retry_delay(record.rotation_failures + 1, after, jitter, LONGEST_AHEAD)
        return failures.rotation_failed(
            record, reason, now, delay, interrupted=touched, since=ending.at, asked_to_wait=after is not None
        )
    delay = _delay(record, after, ending, terms, now, jitter)
    last_try = _last_try(record, terms, now)
    changed = failures.failed(
        record,
        reason,
        now,
        delay,
        interrupted=touched,
        since=ending.at,
        sent=ending.sent.request if ending.sent and last_try is None else None,
        asked_to_wait=after is not None,
        costly=cause is Cause.UNREADABLE or outcome.refresh_token is not None,
    )
    return changed if last_try is None else replace(changed, retry=now.after(max(delay, last_try)))


def _last_try(record: Record, terms: Terms, now: Moment) -> float | None:
    """Seconds until the one try that confirms a rejection (law 4). None: there is none, or it is due now. A try by hand
    that got no answer does not make it earlier."""
    token = record.refresh_token
    is_rejected = token is not None and token.rejected is not None
    return confirmed_in(record.access_token, terms.pace, now) if is_rejected else None


def _delay(record: Record, after: float | None, ending: Ending, terms: Terms, now: Moment, jitter: float) -> float:
    """Seconds until the next try; not after the living token expires, if credentials can issue the next one."""
    delay, token = retry_delay(record.failures + 1, after, jitter), record.access_token
    takes_over = after is None and terms.can_issue and ending.plan.operation is Operation.RENEW
    if takes_over and token is not None and token.expires is not None and alive(token, now):
        return min(delay, max(FIRST, seconds_until(token.expires, now)))
    return delay


def _doubted(record: Record, reason: str, after: float | None, ending: Ending, now: Moment, jitter: float) -> Record:
    """The password may be wrong, or the account locked, for longer each time the password is sent (law 7). A refresh
    token locks nothing, so it is tried by ordinary backoff. `after`, the provider's Retry-After, holds for both."""
    assert ending.sent is not None
    asked = 0.0 if after is None else retry_delay(1, after, jitter)
    delay = doubted_delay(ending.sent.times, jitter)
    record = replace(record, doubt=ending.sent.doubt(now, delay))
    delay = max(delay, asked)
    if ending.plan.early:
        record = failures.rotation_failed(record, reason, now, delay, interrupted=False)
        return replace(record, retry=now.after(asked), retry_after=now.after(asked)) if asked else record
    if usable(record.refresh_token, now):
        delay = retry_delay(record.failures + 1, after, jitter)
    record = failures.refused(record, reason, now, delay, record.refused, record.refused_until)
    return replace(record, retry_after=now.after(asked)) if asked else record


def _with_saved_token(
    record: Record, outcome: RetryLater | Misconfigured, ending: Ending, terms: Terms, jitter: float
) -> Record:
    """The record with the refresh token of an answer whose rest cannot be used (law 3). It is ignored if it came with a
    failure, or for a downscoped token only, and the stored refresh token was not sent: that one is still good."""
    token, plan = outcome.refresh_token, ending.plan
    is_success = isinstance(outcome, Misconfigured) or outcome.cause is Cause.UNREADABLE
    renewed = plan.operation is Operation.RENEW
    if token is None or not (renewed or (is_success and plan.target is None)):
        return record
    if record.refresh_token is not None and token.value == record.refresh_token.value:
        return record  # the answer may only repeat what was sent
    refresh = _refresh(record, token, ending, terms, jitter)
    return issuance.refresh_token_saved(record, refresh, ending.at, replaces=is_success)


def _refresh(record: Record, token: IssuedToken, ending: Ending, terms: Terms, jitter: float) -> RefreshToken:
    refresh, before, target = new_refresh_token(token, ending.at, jitter), record.refresh_token, ending.plan.target
    assert refresh is not None
    if ending.plan.operation is not Operation.RENEW or before is None:
        return refresh
    restore = before.restore if target is None else downscoped.restored(before, target, terms.own)
    return replace(refresh, restore=restore)


ONCE = "it was rejected once, and is tried a last time near the end of the access token's life"
