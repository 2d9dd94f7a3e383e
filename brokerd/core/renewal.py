# When a grant is next due and by which operation: the one function whose answer is really slept (law 6).
# Pure: the record, what the dialect can do with it, and the time are arguments.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from brokerd.core.grant import State
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.record import AccessToken, Record, RefreshToken, alive, usable
from brokerd.core.wanted import Wanted

AHEAD = 2 / 3  # of a lifetime: late enough to be worth the request, early enough to fail a few times (law 6)
SPREAD = 0.08  # of a lifetime, by which jitter puts a renewal off: grants issued together part slowly
NEAR_END = 0.1  # of a lifetime before its end ...
NEAR_END_MOST = 60.0  # ... but at most so many seconds: when an interrupted refresh token is risked again (law 3)
PERSISTENT = 3  # failures in a row after which renewing by refresh token is taken to keep failing (law 7)
LEAST_INTERVAL = 1.0  # seconds between two exchanges that nobody asked for, whatever lifetimes a provider names


class Operation(StrEnum):
    ISSUE = "issue"  # credentials -> tokens; also the rotation of a refresh token that is about to end
    RENEW = "renew"  # refresh token -> access token, perhaps with a new refresh token
    REVOKE = "revoke"
    LOGIN = "login"  # a person -> tokens
    VERIFY = "verify"  # ask the provider whether tokens are active; nothing comes of it


@dataclass(frozen=True, slots=True)
class Ability:
    """What a dialect can do for a grant with the tokens and credentials that are there now.

    `issue`: tokens from what is at hand, without a person. `renew`: the dialect has a renewal. `issue_spends` and
    `renew_spends`: the operation sends a stored token that its answer may replace. `asked`: what tokens are asked for.
    `login`: tokens can be had with a person's help.
    """

    issue: bool
    renew: bool
    issue_spends: bool = False
    renew_spends: bool = False
    asked: str = ""
    login: bool = False

    def spends(self, operation: Operation) -> bool:
        return {Operation.ISSUE: self.issue_spends, Operation.RENEW: self.renew_spends}.get(operation, False)


@dataclass(frozen=True, slots=True)
class Pace:
    """A grant's settings for its renewals: `lifetime` in seconds of a token that names none, `lifetime_named`: the
    configuration says it, so that it counts more than what is hard to believe, `on_demand`: renew
    only when somebody asks, `reuse_grace`: seconds within which the provider takes a used refresh token again."""

    lifetime: float = 3_600.0
    on_demand: bool = False
    reuse_grace: float = 0.0
    lifetime_named: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """An exchange to come: `delay` is in seconds from now, 0 means at once. `early`: a rotation ahead of need, whose
    failure costs nothing. `wanted`: the variant that it is for; None: the grant's own token, or a revocation."""

    operation: Operation
    delay: float
    early: bool = False
    wanted: Wanted | None = None


def next_for_caller(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    """The exchange that brings somebody who waits a new access token, and how long it is held back; None where
    there is none without a person. `attempted`: when the grant's last exchange began."""
    if record.state in (State.RENEWING, State.NEEDS_LOGIN, State.REVOKED):
        return None
    if ability.renew and usable(record.refresh_token, now):
        instead = ability.issue and _renews_in_vain(record, now)
        operation = Operation.ISSUE if instead else Operation.RENEW
    elif ability.issue:
        operation = Operation.ISSUE
    else:
        return None
    held = max(0.0, _until(record.retry, now), _paced(attempted, now))
    if ability.spends(operation):
        held = max(held, risked_after(record, pace, now))
    return Plan(operation, held)


def next_by_itself(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    """What the refresher does next with the grant, and when: the delay is the one that is really slept."""
    renewal = _next_renewal(record, ability, pace, now, attempted)
    if not record.doomed or record.state is State.RENEWING:
        return renewal
    revocation = Plan(Operation.REVOKE, max(0.0, _until(record.telling, now)))
    return revocation if renewal is None or revocation.delay <= renewal.delay else renewal


def variants_due(record: Record, asked: str, pace: Pace, now: Moment) -> Iterator[tuple[Wanted, float]]:
    """The variants that are renewed ahead, as somebody used them within their lifetime, and in how many seconds."""
    for each in record.variants if not pace.on_demand else ():
        token = each.access_token
        lifetime = pace.lifetime if token.lifetime is None else token.lifetime
        if each.asked == asked and -seconds_until(each.used, now) < lifetime:
            yield each.wanted, _due(token, pace.lifetime, now)


def _next_renewal(record: Record, ability: Ability, pace: Pace, now: Moment, attempted: Moment | None) -> Plan | None:
    token = next_for_caller(record, ability, pace, now, attempted)
    if token is None:
        return None
    access, refresh = record.access_token, record.refresh_token
    due = NEVER if pace.on_demand else _due(access, pace.lifetime, now)
    if token.operation is Operation.RENEW and refresh is not None and refresh.lifetime is not None:
        rotation = _due(refresh, refresh.lifetime, now)
        if ability.renew_spends and not refresh.kept:
            due = min(due, rotation)
        elif ability.issue and alive(access, now):
            held = max(_until(record.rotation_retry, now), _until(record.retry, now), _paced(attempted, now))
            if ability.issue_spends:
                held = max(held, risked_after(record, pace, now))
            rotation = max(rotation, held)
            if rotation <= due:
                return Plan(Operation.ISSUE, rotation, early=True)
    if record.asked != ability.asked and access is not None:  # another scope (law 14): anew, if that can be
        delay = max(token.delay, _until(record.rotation_retry, now))
        if delay <= max(due, token.delay):
            return Plan(Operation.ISSUE if ability.issue else token.operation, delay, early=ability.issue)
    return None if due == NEVER else Plan(token.operation, max(due, token.delay))


def _renews_in_vain(record: Record, now: Moment) -> bool:
    """Whether it is the credentials' turn: renewing by refresh token keeps failing without a rejection, and nothing
    lives that could be served (law 7). Where they fail as well, the two take turns."""
    return record.failures >= PERSISTENT and not record.instead and not alive(record.access_token, now)


def confirmed_in(token: AccessToken | None, pace: Pace, now: Moment) -> float | None:
    """Seconds until a refresh token that was rejected is tried once more, near the end of the living access token; None
    where less than a tenth of that one's life is left, so that the rejection counts at once (law 4)."""
    if token is None or not alive(token, now):
        return None
    lifetime = pace.lifetime if token.lifetime is None else token.lifetime
    left = seconds_until(token.issued.after(lifetime), now)
    return None if left < NEAR_END * lifetime else left - min(NEAR_END_MOST, NEAR_END * lifetime)


def near_end(token: AccessToken | None, now: Moment) -> float:
    """Seconds until the token nears its end; 0 where there is none, it is dead, or no end is known."""
    if token is None or token.lifetime is None:
        return 0.0
    margin = min(NEAR_END_MOST, NEAR_END * token.lifetime)
    return max(0.0, seconds_until(token.issued.after(token.lifetime - margin), now))


def risked_after(record: Record, pace: Pace, now: Moment) -> float:
    """Seconds until a refresh token that may be used up is sent again (law 3): at once within the provider's
    grace, else not before the living access token nears its end. 0 where nothing was interrupted."""
    if record.interrupted is None or 0 <= -_until(record.interrupted, now) < pace.reuse_grace:
        return 0.0
    return near_end(record.access_token, now)


def _due(token: AccessToken | RefreshToken | None, unnamed: float, now: Moment) -> float:
    """Seconds until the token is to be replaced: about two thirds of its life, by the jitter that it was born with."""
    if token is None:
        return 0.0
    lifetime = unnamed if token.lifetime is None else token.lifetime
    return max(0.0, seconds_until(token.issued.after(lifetime * (AHEAD + SPREAD * token.jitter)), now))


def _paced(attempted: Moment | None, now: Moment) -> float:
    return 0.0 if attempted is None else seconds_until(attempted, now) + LEAST_INTERVAL


def _until(moment: Moment | None, now: Moment) -> float:
    return 0.0 if moment is None else seconds_until(moment, now)


NEVER = float("inf")
