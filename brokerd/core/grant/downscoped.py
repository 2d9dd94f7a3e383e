# A grant's downscoped tokens in its record: which one is served, and how each event changes them. If there are too
# many, the least recently used one is dropped. The narrower scope never carries over to later tokens. Pure.
from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from brokerd.core.exchange.outcomes import Tokens
from brokerd.core.grant.record import DOWNSCOPED_MOST, DownscopedToken, Record, newest, next_generation
from brokerd.core.grant.state import State, Trigger, move
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import (
    AccessToken,
    RefreshToken,
    alive,
    new_access_token,
    new_refresh_token,
    usable,
    without_fields,
)
from brokerd.core.timing.moment import Moment, seconds_until

USE_NOTED = 1.0  # seconds between two notes that a downscoped token was used


def find(record: Record, target: Target, requested: str) -> DownscopedToken | None:
    """The downscoped token, unless the configuration requests something else for the grant now (law 14)."""
    return next((each for each in record.downscoped if each.target == target and each.requested == requested), None)


def served(record: Record, target: Target, requested: str, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
    """The access token for that target that may be handed out now, if there is one."""
    found = find(record, target, requested)
    if found is None or record.state is State.REVOKED or not alive(found.access_token, now, min_ttl):
        return None
    return found.access_token


def used(record: Record, target: Target, now: Moment) -> Record:
    """A caller got it: it is renewed ahead for one more lifetime, and is the last one to be dropped."""
    mine = next((each for each in record.downscoped if each.target == target), None)
    if mine is None or (mine is record.downscoped[-1] and -seconds_until(mine.used, now) < USE_NOTED):
        return record
    others = tuple(each for each in record.downscoped if each is not mine)
    return replace(record, downscoped=(*others, structs.replace(mine, used=now)))


def issued(
    record: Record,
    target: Target,
    tokens: Tokens,
    at: Moment,
    jitter: float,
    requested: str,
    own: Target,
    *,
    renewed: bool,
) -> Record:
    """The exchange brought a downscoped token. `renewed`: by the refresh token, which the answer may have replaced. A
    refresh token that came in another way is narrower than the grant's own, so it is not kept. `own`: what the grant's
    own tokens are for."""
    token = new_access_token(tokens, at, jitter)
    refresh = record.refresh_token
    if renewed and refresh is not None:
        new = new_refresh_token(tokens.refresh_token, at, jitter) or replace(refresh, kept=True, rejected=None)
        refresh = replace(new, restore=restored(refresh, target, own))
    by_target = {each.target: each for each in record.downscoped if each.requested == requested}
    if token is not None and alive(token, at):
        used = by_target[target].used if target in by_target else at  # renewing ahead does not count as a use
        by_target[target] = DownscopedToken(target, token, requested, used)
    kept = tuple(by_target.values())[-DOWNSCOPED_MOST:]
    dropped = (without_fields(each.access_token) for each in record.downscoped if each not in kept)
    # Some providers give out the same token until it expires: then it was not replaced.
    replaced = (each for each in (*record.superseded, *dropped) if token is None or each.value != token.value)
    return replace(
        next_generation(record, at),
        state=move(record.state, Trigger.ISSUED, can_issue=True),
        refresh_token=refresh,
        downscoped=kept,
        superseded=newest(each for each in replaced if usable(each, at)),
        interrupted=None if renewed else record.interrupted,
        previous_refresh=None if renewed else record.previous_refresh,
        renewals=record.renewals + 1,
    )


def declined(record: Record, since: Moment, *, sent_stored: bool) -> Record:
    """The provider refuses that downscoped token. The grant is as before, unless a stored token was sent: the provider
    may have used it up before it refused (law 3)."""
    return replace(
        record,
        state=move(record.state, Trigger.DECLINED, can_issue=True),
        interrupted=(record.interrupted or since) if sent_stored else record.interrupted,
        retry=None,
    )


def restored(refresh: RefreshToken, target: Target, own: Target) -> Target:
    """What the request for the grant's own next token must name: its own value for each part (scope, audience,
    resource) that a downscoped token named since."""
    before = refresh.restore or Target()
    return Target(
        before.scope or (own.scope if target.scope else None),
        before.audience or (own.audience if target.audience else None),
        before.resource or (own.resource if target.resource else None),
    )
