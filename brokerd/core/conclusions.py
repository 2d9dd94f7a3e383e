# What the end of an exchange does to its grant's record (laws 2, 3, 4, 7): one pure function, and what the same end
# says of the password that was sent. Time and chance are arguments; exchanger.py makes the result durable.
from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from brokerd.core import record as records
from brokerd.core import revocation as revocations
from brokerd.core import variants
from brokerd.core.backoff import FIRST, HOUR, LONGEST_AHEAD, RECHECK, SPREAD, doubted_delay, retry_delay
from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import (
    Blame,
    Cause,
    Declined,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Token,
    Tokens,
)
from brokerd.core.record import AccessToken, Doubt, Record, alive, usable
from brokerd.core.renewal import Operation, Pace, Plan, confirmed_in
from brokerd.core.wanted import Wanted

DOUBTFUL = (400, 401, 403, 422)  # with these, servers also answer a wrong password in forms of their own (law 7)


@dataclass(frozen=True, slots=True)
class Sent:
    """What an exchange sends, to be known again: digests of all that the request is made of and, where a user's
    password goes along, of the credentials. `earlier`: what was known of that password before."""

    request: bytes
    password: bytes | None = None
    earlier: Doubt | None = None

    @property
    def times(self) -> int:
        """How often in a row the password was sent and perhaps refused, if it is refused this time as well."""
        return self.earlier.times + 1 if self.earlier else 1

    def doubt(self, now: Moment, delay: float) -> Doubt:
        assert self.password is not None, "only a password is doubted"
        return Doubt(self.password, self.request, self.times, now.after(delay))


@dataclass(frozen=True, slots=True)
class Ending:
    """How an exchange ended. `generation` is the record's when it began, `at` when its last request left, `status` that
    of the last answer. `spends`: it sent a stored token. Without `sent` nothing was sent."""

    plan: Plan
    generation: int
    outcome: Outcome
    at: Moment
    status: int | None = None
    spends: bool = False
    sent: Sent | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What is configured for the grant, as far as a conclusion depends on it. `own`: what its own tokens are for."""

    asked: str
    own: Wanted
    can_issue: bool
    pace: Pace


class Verdict(Enum):
    """What an ending says of the password that was sent."""

    NOTHING = "nothing"
    TAKEN = "taken"
    DOUBTED = "doubted"  # perhaps refused: in no terms of the provider's own
    REFUSED = "refused"


def verdict(ending: Ending) -> Verdict:
    """Of the password (law 7). `invalid_client` never blames it."""
    if ending.sent is None or ending.sent.password is None:
        return Verdict.NOTHING
    match ending.outcome:
        case Issued():
            return Verdict.TAKEN
        case Rejected() | Misconfigured(blames=Blame.PASSWORD):
            return Verdict.REFUSED
        case RetryLater(cause=Cause.SILENT):
            return Verdict.DOUBTED
        case Misconfigured(blames=Blame.REQUEST) | RetryLater(cause=Cause.STRANGE) if ending.status in DOUBTFUL:
            return Verdict.DOUBTED
    return Verdict.NOTHING


def concluded(record: Record, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record | None:
    """The record after the exchange; None where nothing moves, because the ending speaks of an older generation."""
    changed = _moved(record, ending, terms, now, jitter)
    return None if changed is None else records.dated(record, changed, now)


def _moved(record: Record, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record | None:
    outcome = ending.outcome
    if record.generation != ending.generation:
        if isinstance(outcome, Issued) and record.state is State.REVOKED:
            return revocations.came_late(record, outcome.tokens, ending.at)
        return None
    if ending.sent is not None and ending.sent.password is not None:
        # Noted when it was sent. What says nothing of it leaves what was known before.
        record = replace(record, doubt=ending.sent.earlier if verdict(ending) is Verdict.NOTHING else None)
    by_credentials = ending.plan.operation is Operation.ISSUE and not ending.plan.early
    record = replace(record, instead=by_credentials and record.refresh_token is not None)
    match outcome:
        case Issued(tokens):
            return _issued(record, tokens, ending, terms, now, jitter)
        case Declined():
            return variants.declined(record, ending.at, spent=ending.spends)
        case Rejected(reason) if ending.plan.operation is Operation.RENEW:
            return _rejected(record, reason, terms, now)
        case Rejected(reason):
            return _refused(record, Misconfigured(reason), ending, terms, now, jitter)
        case Misconfigured():
            return _refused(record, outcome, ending, terms, now, jitter)
        case RetryLater():
            return _failed(record, outcome, ending, terms, now, jitter)
        case _:
            raise AssertionError("an exchange for a token is never merely done")


def explained(record: Record, reason: str) -> str:
    """A rejection in words, with the exchange before it that may have used the refresh token up."""
    if record.interrupted is None:
        return reason
    when = f"{revocations.EPOCH + timedelta(seconds=record.interrupted.wall):%Y-%m-%d %H:%M:%S}"
    first = f": {record.first_error}" if record.first_error else ""
    return f"{reason} (an exchange was interrupted at {when} UTC and may have used it up{first})"


# -- by outcome


def _issued(record: Record, tokens: Tokens, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record:
    plan, at = ending.plan, ending.at
    renewed = plan.operation is Operation.RENEW
    if plan.wanted is not None:
        changed = variants.issued(record, plan.wanted, tokens, at, jitter, terms.asked, terms.own, renewed=renewed)
        return _unless_dead(changed, record, records.new_access(tokens, at, jitter), now, jitter)
    # A renewal keeps the scope of its refresh token. Where credentials can issue a token, the new scope comes that way.
    asked = record.asked if renewed and terms.can_issue else terms.asked
    password = ending.sent.password if ending.sent else None
    changed = records.issued(record, tokens, at, jitter, asked, renewed=renewed, password=password)
    changed = _unless_dead(changed, record, changed.access_token if tokens.access_token else None, now, jitter)
    if plan.early and tokens.refresh_token is None:  # this is no way to a new refresh token
        return replace(changed, rotation_retry=now.after(HOUR * (1 + SPREAD * jitter)))
    return changed


def _unless_dead(changed: Record, before: Record, token: AccessToken | None, now: Moment, jitter: float) -> Record:
    """A token that came without any life left is a failure, so that nobody asks for the next one at once."""
    if token is None or alive(token, now):
        return changed
    failures = before.failures + 1
    return records.came_dead(changed, failures, now, retry_delay(failures, None, jitter), token.odd)


def _rejected(record: Record, reason: str, terms: Terms, now: Moment) -> Record:
    """The refresh token is rejected. While much of the access token's life is left and nothing is uncertain, that is
    confirmed by one more try; where credentials bring new tokens without a person, nothing is lost by believing it."""
    token = record.refresh_token
    delay = confirmed_in(record.access_token, terms.pace, now)
    is_first = token is not None and token.rejected is None and record.uncertain is None
    if is_first and delay is not None and not terms.can_issue:
        return records.rejected_once(record, f"{reason} ({ONCE})", now, delay)
    return records.rejected(record, explained(record, reason), now, can_issue=terms.can_issue)


def _refused(
    record: Record, outcome: Misconfigured, ending: Ending, terms: Terms, now: Moment, jitter: float
) -> Record:
    """A person must change something. What was sent is tried again by ordinary backoff, unless that could lock an
    account."""
    reason, after, sent, early = outcome.reason, outcome.after, ending.sent, ending.plan.early
    said = verdict(ending)
    if said is Verdict.DOUBTED:
        return _doubted(record, reason, after, ending, now, jitter)
    if said is Verdict.REFUSED:
        assert sent is not None
        if early:
            return records.rotation_failed(record, reason, now, RECHECK, interrupted=False, password=sent.password)
        return records.refused(record, reason, now, RECHECK, sent.password)
    if early:
        delay = retry_delay(record.rotation_failures + 1, after, jitter, LONGEST_AHEAD)
        return records.rotation_failed(record, reason, now, delay, interrupted=False, asked_to_wait=after is not None)
    delay = _delay(record, after, ending, terms, now, jitter)
    digest, until = record.refused, record.refused_until
    if sent is not None and not (sent.password is None and records.refuses_password(record)):
        digest, until = sent.request, now.after(delay)
    return records.refused(record, reason, now, delay, digest, until, asked=after is not None)


def _failed(record: Record, outcome: RetryLater, ending: Ending, terms: Terms, now: Moment, jitter: float) -> Record:
    """The provider or the network: nothing was learnt about the grant."""
    reason, cause, after, before = outcome.reason, outcome.cause, outcome.after, record
    record = _rescued(before, outcome, ending, terms, jitter)
    touched = ending.spends and cause.touched and record is before
    if verdict(ending) is Verdict.DOUBTED:
        return _doubted(record, reason, after, ending, now, jitter)
    if ending.plan.early:
        delay = retry_delay(record.rotation_failures + 1, after, jitter, LONGEST_AHEAD)
        return records.rotation_failed(
            record, reason, now, delay, interrupted=touched, since=ending.at, asked_to_wait=after is not None
        )
    delay = _delay(record, after, ending, terms, now, jitter)
    last_try = _last_try(record, terms, now)
    changed = records.failed(
        record,
        reason,
        now,
        delay,
        interrupted=touched,
        since=ending.at,
        sent=ending.sent.request if ending.sent and last_try is None else None,
        asked=after is not None,
        costly=cause is Cause.UNREADABLE or outcome.refresh_token is not None,
    )
    return changed if last_try is None else replace(changed, retry=now.after(max(delay, last_try)))


def _last_try(record: Record, terms: Terms, now: Moment) -> float | None:
    """Seconds until the one try that confirms a rejection (law 4): a try by hand that was not answered does not bring
    it forward. None where none is to come, or it is about to be made."""
    token = record.refresh_token
    is_rejected = token is not None and token.rejected is not None
    return confirmed_in(record.access_token, terms.pace, now) if is_rejected else None


def _delay(record: Record, after: float | None, ending: Ending, terms: Terms, now: Moment, jitter: float) -> float:
    """Until the next try; where credentials can take over when the living token has died, not beyond that."""
    delay, token = retry_delay(record.failures + 1, after, jitter), record.access_token
    takes_over = after is None and terms.can_issue and ending.plan.operation is Operation.RENEW
    if takes_over and token is not None and token.expires is not None and alive(token, now):
        return min(delay, max(FIRST, seconds_until(token.expires, now)))
    return delay


def _doubted(record: Record, reason: str, after: float | None, ending: Ending, now: Moment, jitter: float) -> Record:
    """It may be the password, or an account that is locked for longer each time it is sent (law 7). A refresh token
    that is there has its turn by ordinary backoff: it locks nothing. What the provider asked for, `after` so many
    seconds, holds for that as well."""
    assert ending.sent is not None
    asked = 0.0 if after is None else retry_delay(1, after, jitter)
    delay = doubted_delay(ending.sent.times, jitter)
    record = records.doubted(record, ending.sent.doubt(now, delay))
    delay = max(delay, asked)
    if ending.plan.early:
        record = records.rotation_failed(record, reason, now, delay, interrupted=False)
        return replace(record, retry=now.after(asked), asked_until=now.after(asked)) if asked else record
    if usable(record.refresh_token, now):
        delay = retry_delay(record.failures + 1, after, jitter)
    record = records.refused(record, reason, now, delay, record.refused, record.refused_until)
    return replace(record, asked_until=now.after(asked)) if asked else record


def _rescued(record: Record, outcome: RetryLater, ending: Ending, terms: Terms, jitter: float) -> Record:
    """The record with the refresh token that an answer brought which is of no other use (law 3). One that came in
    another way than for the stored one, or for a part of the grant only, is left alone where the stored one is well."""
    token, plan, is_success = outcome.refresh_token, ending.plan, outcome.cause is Cause.UNREADABLE
    renewed = plan.operation is Operation.RENEW
    if token is None or not (renewed or (is_success and plan.wanted is None)):
        return record
    if record.refresh_token is not None and token.value == record.refresh_token.value:
        return record  # it may only mirror what was sent
    refresh = _refresh(record, token, ending, terms, jitter)
    return records.rescued(record, refresh, ending.at, replaces=is_success)


def _refresh(record: Record, token: Token, ending: Ending, terms: Terms, jitter: float) -> records.RefreshToken:
    refresh, before, wanted = records.new_refresh(token, ending.at, jitter), record.refresh_token, ending.plan.wanted
    assert refresh is not None
    if ending.plan.operation is not Operation.RENEW or before is None:
        return refresh
    restore = before.restore if wanted is None else variants.restored(before, wanted, terms.own)
    return replace(refresh, restore=restore)


ONCE = "it was rejected once, and is tried a last time near the end of the access token's life"
