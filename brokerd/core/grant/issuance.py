# What tokens that a provider issued do to a grant's record: from an exchange, a login or an import. Pure.
from __future__ import annotations

from dataclasses import replace

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant.record import (
    PreviousRefreshToken,
    Record,
    all_superseded,
    newest,
    next_generation,
    superseded_by,
)
from brokerd.core.grant.state import State, Trigger, move
from brokerd.core.grant.tokens import (
    AccessToken,
    RefreshToken,
    already_expired,
    new_access_token,
    new_refresh_token,
)
from brokerd.core.timing.moment import Moment, seconds_until


def issued(
    record: Record,
    tokens: Tokens,
    at: Moment,
    jitter: float,
    requested: str,
    *,
    renewed: bool = False,
    password: bytes | None = None,
) -> Record:
    """The exchange brought tokens, which the provider made at `at` or later. A token that it did not bring stays.
    `renewed`: by refresh token, which says nothing about a refused password. `password`: the digest of the password
    that was accepted."""
    return replace(
        next_generation(record, at),
        state=move(record.state, Trigger.ISSUED, can_issue=True),
        access_token=new_access_token(tokens, at, jitter) or record.access_token,
        refresh_token=new_refresh_token(tokens.refresh_token, at, jitter)
        or _kept(record, tokens.access_token, at, jitter),
        superseded=superseded_by(tokens.access_token, record, at) if tokens.access_token else record.superseded,
        interrupted=None,
        previous_refresh=None,
        rotation_retry=None if tokens.refresh_token else record.rotation_retry,
        rotation_failures=0 if tokens.refresh_token else record.rotation_failures,
        refused=record.refused if renewed and record.refused_until is None else None,
        refused_until=None,
        doubt=record.doubt if renewed else None,
        proven_password=password or record.proven_password,
        requested=requested,
        renewals=record.renewals + 1,
        tried_credentials=False,
    )


def issued_expired(
    record: Record, failures: int, now: Moment, delay: float, lifetime_warning: str | None = None
) -> Record:
    """The token that was just issued had no life left. It is kept, but counts as failure number `failures`, so that the
    next try waits."""
    return replace(
        record,
        state=State.RETRYING,
        retry=now.after(delay),
        failures=failures,
        last_error=already_expired(lifetime_warning),
    )


def refresh_token_saved(record: Record, refresh: RefreshToken, at: Moment, *, replaces: bool) -> Record:
    """A good refresh token came at `at` or later, with an answer that is of no other use (law 3). `replaces`: the
    answer reports success. Otherwise the token before is kept too, because the provider may know only that one."""
    before = record.refresh_token
    previous = None if replaces or before is None else PreviousRefreshToken(before, record.interrupted or at)
    return replace(
        record,
        generation=record.generation + 1,
        refresh_token=refresh,
        previous_refresh=previous,
        interrupted=None,
        changed=at,
    )


def withdrawn(record: Record) -> Record:
    """The access token is a credential that is gone, or may be: it is served no more."""
    if record.access_token is None:
        return record
    return replace(record, generation=record.generation + 1, access_token=None)


def granted(record: Record, tokens: Tokens, at: Moment, jitter: float, requested: str) -> Record:
    """A login or an import brought tokens, made at `at` or later: the grant starts again, whatever was before. Without
    tokens it starts with the grant's credentials."""
    return replace(
        next_generation(record, at),
        state=move(record.state, Trigger.GRANTED, can_issue=True),
        access_token=new_access_token(tokens, at, jitter),
        refresh_token=new_refresh_token(tokens.refresh_token, at, jitter),
        downscoped=(),
        superseded=newest(all_superseded(record, at)),
        unrevoked=(),
        revoked_locally=False,
        interrupted=None,
        previous_refresh=None,
        rotation_retry=None,
        refused=None,
        refused_until=None,
        doubt=None,
        requested=requested,
        subject=tokens.subject,
    )


def _kept(record: Record, access: IssuedToken | None, at: Moment, jitter: float) -> RefreshToken | None:
    """The refresh token, which the answer did not replace."""
    token = record.refresh_token
    if token is None or access is None:
        return token
    token = replace(token, kept=True, restore=None, rejected=None)
    if _has_fixed_end(record.access_token, access, at):
        return replace(token, issued=at, lifetime=access.lifetime, jitter=jitter)
    return token


def _has_fixed_end(old: AccessToken | None, new: IssuedToken, at: Moment) -> bool:
    """Whether the same token came again and expires hardly later. Then no renewal extends it further (Vault's max TTL),
    and the refresh token is of no use after that. Lifetimes are whole seconds, so a difference of one second counts for
    nothing."""
    if old is None or old.value != new.value or old.expires is None or new.lifetime is None:
        return False
    passed = seconds_until(at, old.issued)
    return seconds_until(at.after(new.lifetime), old.expires) + 1 < passed / 2
