# Revocation (law 10): what it does to a record, and what a caller learns: which tokens the provider has revoked, which
# it must still revoke, and which stay alive there, until when. Pure; broker/revocations.py sends the requests.
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from brokerd.core.exchange.outcomes import Tokens
from brokerd.core.grant.record import PendingRevocation, Record, UnrevokedToken, all_superseded, next_generation
from brokerd.core.grant.state import Trigger, move
from brokerd.core.grant.tokens import new_access_token, new_refresh_token, usable, without_fields
from brokerd.core.timing.moment import Moment, seconds_until, wall_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_STORED = "it could NOT be stored: it ends when brokerd ends, unless the disk works again before that; "


@dataclass(frozen=True, slots=True)
class Revocation:
    """`stored`: it is durable. `provider`: what the provider knows, as one word (docs/protocol.md); `detail`: in
    words."""

    stored: bool
    provider: str
    detail: str


def revocation(begun: tuple[PendingRevocation, ...], record: Record, now: Moment, *, stored: bool) -> Revocation:
    """`begun`: the revocations that were pending at the beginning; `record`: the record now."""
    living = still_unrevoked(record, now)
    pending = Counter(each.kind for each in record.pending_revocations)
    told = Counter(each.kind for each in begun) - pending - Counter(each.kind for each in living)
    said = [f"the provider was told of {_tokens(told)}"] if told else []
    if pending:
        error = f" ({record.last_error})" if record.last_error else ""
        said.append(f"brokerd will tell the provider of {_tokens(pending)}, and tries until that succeeds{error}")
    if living:
        verb = "was not told" if record.revoked_locally else "cannot be told"
        stay = "stays" if len(living) == 1 else "stay"
        said.append(f"the provider {verb} of {_tokens(living)}, which {stay} valid there until {_end(living, now)}")
    if pending:
        word = "pending"
    elif record.revoked_locally:
        word = "local"
    else:
        word = "told" if not living else "partly" if told else "unsupported"
    words = "; ".join(said) or "no token of it was alive at the provider"
    return Revocation(stored, word, words if stored else NOT_STORED + words)


def still_unrevoked(record: Record, now: Moment) -> tuple[UnrevokedToken, ...]:
    """The unrevoked tokens that may still be alive, also because no clock can tell."""
    left = {each: seconds_until(each.expires, now) if each.expires else math.inf for each in record.unrevoked}
    return tuple(each for each in record.unrevoked if left[each] > 0 or left[each] == -math.inf)


# -- events


def revoked(record: Record, now: Moment, *, local: bool = False) -> Record:
    """From now on nothing of the grant is served, and the provider must revoke its living tokens. `local`: the provider
    is told of none of them, nor of revocations that were pending before."""
    refresh = record.refresh_token if usable(record.refresh_token, now) else None
    access = [each for each in all_superseded(record, now) if refresh is None or each.value != refresh.value]
    pending = record.pending_revocations + tuple(PendingRevocation(access_token=each) for each in access)
    if refresh is not None:  # at some providers the access token is the same one
        pending += (PendingRevocation(refresh_token=refresh),)
    if record.previous_refresh is not None and usable(record.previous_refresh.token, now):
        pending += (PendingRevocation(refresh_token=record.previous_refresh.token),)
    return replace(
        next_generation(record, now),
        state=move(record.state, Trigger.REVOKE, can_issue=True),
        access_token=None,
        refresh_token=None,
        downscoped=(),
        superseded=(),
        pending_revocations=() if local else pending,
        unrevoked=_unrevoked(record, now, pending if local else ()),
        revoked_locally=local,
        revocation_retry=None,
        interrupted=None,
        previous_refresh=None,
    )


def came_late(record: Record, tokens: Tokens, at: Moment) -> Record:
    """Tokens came that nobody may get: the grant was revoked meanwhile, or they belong to somebody else. They are
    treated as the grant's other tokens were."""
    access, refresh = new_access_token(tokens, at, 0.0), new_refresh_token(tokens.refresh_token, at, 0.0)
    late: tuple[PendingRevocation, ...] = (PendingRevocation(access_token=without_fields(access)),) if access else ()
    late += (PendingRevocation(refresh_token=refresh),) if refresh else ()
    return replace(
        record,
        generation=record.generation + 1,
        pending_revocations=record.pending_revocations + (() if record.revoked_locally else late),
        unrevoked=_unrevoked(record, at, late if record.revoked_locally else ()),
        changed=at,
    )


def provider_told(record: Record, token: PendingRevocation) -> Record:
    """The provider has revoked this token, or need not do it any more."""
    rest = tuple(each for each in record.pending_revocations if each != token)
    return replace(record, pending_revocations=rest, revocation_retry=None, revocation_failures=0, last_error=None)


def not_revocable(record: Record, token: PendingRevocation, now: Moment) -> Record:
    """The provider cannot revoke this token."""
    return replace(provider_told(record, token), unrevoked=_unrevoked(record, now, (token,)))


def revocation_failed(record: Record, reason: str, now: Moment, delay: float) -> Record:
    """The provider could not be told; the next try is after `delay` seconds."""
    return replace(
        record, revocation_retry=now.after(delay), revocation_failures=record.revocation_failures + 1, last_error=reason
    )


def _unrevoked(record: Record, now: Moment, tokens: tuple[PendingRevocation, ...]) -> tuple[UnrevokedToken, ...]:
    """The record's unrevoked tokens that may still be alive, and these tokens."""
    return still_unrevoked(record, now) + tuple(UnrevokedToken(each.kind, each.expires) for each in tokens)


# -- words


def _tokens(kinds: Counter[str] | Iterable[UnrevokedToken]) -> str:
    """The refresh token and 2 access tokens."""
    counts = kinds if isinstance(kinds, Counter) else Counter(each.kind for each in kinds)
    return " and ".join(f"{n} {kind}s" if n > 1 else f"the {kind}" for kind, n in sorted(counts.items(), reverse=True))


def _end(living: Iterable[UnrevokedToken], now: Moment) -> str:
    """When the last of them expires, in words."""
    ends = [each.expires for each in living]
    known = [wall_time(end, now) for end in ends if end is not None]
    if len(known) < len(ends):
        return "the provider ends it" if len(ends) == 1 else "the provider ends them"
    return f"{EPOCH + timedelta(seconds=max(known)):%Y-%m-%d %H:%M} UTC"
