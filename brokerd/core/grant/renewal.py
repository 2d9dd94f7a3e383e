# When a grant is next due, and by which operation (law 6). Pure: the record, what the dialect can do with it, and the
# time are arguments.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken, RefreshToken, alive, usable
from brokerd.core.timing.moment import Moment, seconds_until

AHEAD = 2 / 3  # of a lifetime: late enough to be worth the request, early enough to fail a few times (law 6)
SPREAD = 0.08  # of a lifetime: jitter delays a renewal by up to this, so that grants do not renew at the same moment
NEAR_END = 0.1  # of a lifetime before its end ...
NEAR_END_MOST = 60.0  # ... but at most so many seconds: then an interrupted refresh token is sent again (law 3)
PERSISTENT = 3  # failures in a row of renewals by refresh token, after which the credentials are used (law 7)
LEAST_INTERVAL = 1.0  # seconds between two exchanges that nobody asked for, whatever lifetimes a provider names


class Operation(StrEnum):
    ISSUE = "issue"  # credentials -> tokens; also the rotation of a refresh token that is about to end
    RENEW = "renew"  # refresh token -> access token, perhaps with a new refresh token
    REVOKE = "revoke"
    LOGIN = "login"  # a person -> tokens
    VERIFY = "verify"  # ask the provider whether tokens are active; changes nothing


@dataclass(frozen=True, slots=True)
class Ability:
    """What a dialect can do for a grant with the tokens and credentials that are there now.

    `issue`: it can get tokens without a person. `renew`: the dialect has a renewal. `issue_sends_stored` and
    `renew_sends_stored`: the operation sends a stored token that its answer may replace. `requested`: what tokens are
    requested for, as text. `login`: it can get tokens with a person's help. `unread`: of a token that is itself a
    credential, whether it must be read (again) now; None: tokens come from a provider."""

    issue: bool
    renew: bool
    issue_sends_stored: bool = False
    renew_sends_stored: bool = False
    requested: str = ""
    login: bool = False
    unread: bool | None = None

    def sends_stored(self, operation: Operation) -> bool:
        by_operation = {Operation.ISSUE: self.issue_sends_stored, Operation.RENEW: self.renew_sends_stored}
        return by_operation.get(operation, False)


@dataclass(frozen=True, slots=True)
class Pace:
    """A grant's settings for its renewals. `lifetime`: in seconds, of a token for which the provider names none;
    `lifetime_named`: it is configured, so it replaces an implausible one of the provider. `on_demand`: renew only when
    a caller asks. `reuse_grace`: seconds during which the provider accepts a used refresh token again."""

    lifetime: float = 3_600.0
    on_demand: bool = False
    reuse_grace: float = 0.0
    lifetime_named: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The next exchange, in `delay` seconds. `early`: tokens are issued ahead of need, so a failure costs nothing.
    `target`: what the downscoped token is for; None: the grant's own token, or a revocation."""

    operation: Operation
    delay: float
    early: bool = False
    target: Target | None = None


def next_for_caller(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    """The exchange that brings a new access token to a waiting caller; None: only a person can bring one. `attempted`:
    when the grant's last exchange began."""
    if record.state in (State.RENEWING, State.NEEDS_LOGIN, State.REVOKED):
        return None
    if ability.renew and usable(record.refresh_token, now):
        by_credentials = ability.issue and _is_turn_of_credentials(record, now)
        operation = Operation.ISSUE if by_credentials else Operation.RENEW
    elif ability.issue:
        operation = Operation.ISSUE
    else:
        return None
    delay = max(0.0, _until(record.retry, now), _paced(attempted, now))
    if ability.sends_stored(operation):
        delay = max(delay, sent_again_after(record, pace, now))
    return Plan(operation, delay)


def next_by_itself(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    """What brokerd does next with the grant if no caller asks for anything."""
    renewal = _next_renewal(record, ability, pace, now, attempted)
    if not record.pending_revocations or record.state is State.RENEWING:
        return renewal
    revocation = Plan(Operation.REVOKE, max(0.0, _until(record.revocation_retry, now)))
    return revocation if renewal is None or revocation.delay <= renewal.delay else renewal


def downscoped_due(record: Record, requested: str, pace: Pace, now: Moment) -> Iterator[tuple[Target, float]]:
    """Which downscoped tokens are renewed ahead, because a caller used them within their lifetime, and in how many
    seconds."""
    for each in record.downscoped if not pace.on_demand else ():
        token = each.access_token
        lifetime = pace.lifetime if token.lifetime is None else token.lifetime
        if each.requested == requested and -seconds_until(each.used, now) < lifetime:
            yield each.target, due_in(token, pace.lifetime, now)


def _next_renewal(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    token = next_for_caller(record, ability, pace, now, attempted)
    if token is None:
        return None
    access, refresh = record.access_token, record.refresh_token
    due = NEVER if pace.on_demand else due_in(access, pace.lifetime, now)
    if ability.unread is not None and access is not None:
        due = 0.0 if ability.unread else NEVER
    if token.operation is Operation.RENEW and refresh is not None and refresh.lifetime is not None:
        rotation = due_in(refresh, refresh.lifetime, now)
        if ability.renew_sends_stored and not refresh.kept:
            due = min(due, rotation)
        elif ability.issue and alive(access, now):
            rotation = max(
                rotation, _until(record.rotation_retry, now), _until(record.retry, now), _paced(attempted, now)
            )
            if ability.issue_sends_stored:
                rotation = max(rotation, sent_again_after(record, pace, now))
            if rotation <= due:
                return Plan(Operation.ISSUE, rotation, early=True)
    if record.requested != ability.requested and access is not None:  # another scope (law 14): best by a new issue
        delay = max(token.delay, _until(record.rotation_retry, now))
        if delay <= max(due, token.delay):
            return Plan(Operation.ISSUE if ability.issue else token.operation, delay, early=ability.issue)
    return None if due == NEVER else Plan(token.operation, max(due, token.delay))


def _is_turn_of_credentials(record: Record, now: Moment) -> bool:
    """Whether the credentials are used next: renewing by refresh token keeps failing without a rejection, and no token
    can be served (law 7). If the credentials fail too, the two take turns."""
    return record.failures >= PERSISTENT and not record.tried_credentials and not alive(record.access_token, now)


def confirmed_in(token: AccessToken | None, pace: Pace, now: Moment) -> float | None:
    """Seconds until a rejected refresh token is tried once more, near the end of the living access token. None: less
    than a tenth of that token's life is left, so the rejection counts at once (law 4)."""
    if token is None or not alive(token, now):
        return None
    lifetime = pace.lifetime if token.lifetime is None else token.lifetime
    left = seconds_until(token.issued.after(lifetime), now)
    return None if left < NEAR_END * lifetime else left - min(NEAR_END_MOST, NEAR_END * lifetime)


def near_end(token: AccessToken | None, now: Moment) -> float:
    """Seconds until the token is near its end; 0 if there is none, it has expired, or its expiry is not known."""
    if token is None or token.lifetime is None:
        return 0.0
    margin = min(NEAR_END_MOST, NEAR_END * token.lifetime)
    return max(0.0, seconds_until(token.issued.after(token.lifetime - margin), now))


def sent_again_after(record: Record, pace: Pace, now: Moment) -> float:
    """Seconds until a refresh token that may be used up is sent again (law 3): at once within the provider's grace,
    else near the end of the living access token. 0 if nothing was interrupted."""
    if record.interrupted is None or in_grace(record, pace, now):
        return 0.0
    return near_end(record.access_token, now)


def in_grace(record: Record, pace: Pace, now: Moment) -> bool:
    """Whether a refresh token that may be used up can be sent again without harm."""
    return record.interrupted is not None and 0 <= -_until(record.interrupted, now) < pace.reuse_grace


def due_in(token: AccessToken | RefreshToken | None, unnamed: float, now: Moment) -> float:
    """Seconds until the token must be replaced, after about two thirds of its life. `unnamed`: the lifetime of a token
    for which the provider named none."""
    if token is None:
        return 0.0
    lifetime = unnamed if token.lifetime is None else token.lifetime
    return max(0.0, seconds_until(token.issued.after(lifetime * (AHEAD + SPREAD * token.jitter)), now))


def _paced(attempted: Moment | None, now: Moment) -> float:
    return 0.0 if attempted is None else seconds_until(attempted, now) + LEAST_INTERVAL


def _until(moment: Moment | None, now: Moment) -> float:
    return 0.0 if moment is None else seconds_until(moment, now)


NEVER = float("inf")
