# A grant's variants in its record: which one is served, and how each event changes them. Bounded: the least recently
# used goes. None becomes the grant's own token, and what it was asked for sticks to no later token.
from __future__ import annotations

from dataclasses import replace

from brokerd.core.grant import Event, State, move
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import Tokens
from brokerd.core.record import (
    OUTLIVED_MOST,
    VARIANTS_MOST,
    AccessToken,
    Record,
    RefreshToken,
    Variant,
    alive,
    new_access,
    new_refresh,
    usable,
)
from brokerd.core.wanted import Wanted

NOTED_AGAIN = 1.0  # seconds; that a variant is used more often than this is not noted each time


def find(record: Record, wanted: Wanted, asked: str) -> Variant | None:
    """The variant, unless the grant has been configured to ask for something else meanwhile (law 14)."""
    return next((each for each in record.variants if each.wanted == wanted and each.asked == asked), None)


def served(record: Record, wanted: Wanted, asked: str, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
    """The variant's token that may be handed out now, if there is one."""
    found = find(record, wanted, asked)
    if found is None or record.state is State.REVOKED or not alive(found.access_token, now, min_ttl):
        return None
    return found.access_token


def used(record: Record, wanted: Wanted, now: Moment) -> Record:
    """Somebody got it: it is renewed ahead for a lifetime more, and is the last to go."""
    mine = next((each for each in record.variants if each.wanted == wanted), None)
    if mine is None or (mine is record.variants[-1] and -seconds_until(mine.used, now) < NOTED_AGAIN):
        return record
    others = tuple(each for each in record.variants if each is not mine)
    return replace(record, variants=(*others, replace(mine, used=now)))


def issued(
    record: Record, wanted: Wanted, tokens: Tokens, at: Moment, jitter: float, asked: str, own: Wanted, *, renewed: bool
) -> Record:
    """The exchange brought a variant. `renewed`: with the refresh token, which an answer may have replaced; one that
    comes in another way is for so much less than the grant's own that it is not kept. `own`: what the grant's own
    tokens are for."""
    token = new_access(tokens, at, jitter)
    refresh = record.refresh_token
    if renewed and refresh is not None:
        new = new_refresh(tokens.refresh_token, at, jitter) or replace(refresh, kept=True, rejected=None)
        refresh = replace(new, restore=restored(refresh, wanted, own))
    place = {each.wanted: each for each in record.variants if each.asked == asked}
    if token is not None and alive(token, at):
        used = place[wanted].used if wanted in place else at  # a renewal ahead is no use of it
        place[wanted] = Variant(wanted, token, asked, used)
    variants = tuple(place.values())[-VARIANTS_MOST:]
    gone = (each.access_token for each in record.variants if each not in variants)
    # Some providers give out one token until it ends: what comes again has not been replaced.
    outlived = (each for each in (*record.outlived, *gone) if token is None or each.value != token.value)
    return replace(
        record,
        generation=record.generation + 1,
        state=move(record.state, Event.ISSUED, can_issue=True),
        refresh_token=refresh,
        variants=variants,
        outlived=tuple(each for each in outlived if usable(each, at))[-OUTLIVED_MOST:],
        interrupted=None if renewed else record.interrupted,
        earlier=None if renewed else record.earlier,
        retry=None,
        asked_until=None,
        renewals=record.renewals + 1,
        failures=0,
        last_error=None,
        first_error=None,
        changed=at,
    )


def declined(record: Record, since: Moment, *, spent: bool) -> Record:
    """The provider refuses that variant. The grant is as it was before, unless a stored token was `spent`: whether the
    provider used it up before it refused, nobody knows (law 3)."""
    return replace(
        record,
        state=move(record.state, Event.DECLINED, can_issue=True),
        interrupted=(record.interrupted or since) if spent else record.interrupted,
        retry=None,
    )


def restored(refresh: RefreshToken, wanted: Wanted, own: Wanted) -> Wanted:
    """What the grant's own next token names: of that which variants named since its last one, its own."""
    before = refresh.restore or Wanted()
    return Wanted(
        before.scope or (own.scope if wanted.scope else None),
        before.audience or (own.audience if wanted.audience else None),
        before.resource or (own.resource if wanted.resource else None),
    )
