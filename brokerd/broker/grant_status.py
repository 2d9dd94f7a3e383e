# What `status` shows of one grant (docs/protocol.md). No secret is in it.
from __future__ import annotations

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.exchange.implausible_values import notes
from brokerd.core.exchange.scope import cut_scope, is_cut
from brokerd.core.grant.advice import of_record
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.moment import Moment, wall_time

SHOWN_SCOPE = 1_024  # characters of a scope that are shown


def grant_status(grant: LiveGrant, now: Moment, next_look: float | None) -> dict[str, object]:
    """`next_look`: when the schedule looks at the grant next, on CLOCK_BOOTTIME. Tuples instead of lists: a status of
    ten thousand grants must not begin a collection of garbage, which would keep every caller waiting."""
    record, token = grant.record, grant.serves(now)
    refresh, dialect = record.refresh_token, grant.dialect
    return {
        "name": grant.name,
        "provider": grant.provider.name,
        "state": str(state_of(grant)),
        "issued_at": wall_time(token.issued, now) if token else None,
        "expires_at": expires_at(token, now) if token else None,
        "next_renewal_at": None if next_look is None else round(now.wall + max(0.0, next_look - now.boot), 2),
        "scope": cut_scope(token.scope, SHOWN_SCOPE) if token and token.scope is not None else None,
        "scope_dropped": _dropped(grant, token),
        "fields": tuple(sorted(token.fields)) if token and token.fields else (),
        "refresh_expires_at": wall_time(refresh.expires, now) if refresh and refresh.expires else None,
        "generation": record.generation,
        "renewals": record.renewals,
        "failures": record.failures,
        "interrupted": wall_time(record.uncertain, now) if record.uncertain else None,
        "unstored": grant.unstored,
        "last_error": grant.blocked or record.error,
        "failing_since": failing_since(grant, now),
        "revoked_at": _revoked_at(grant, now),
        "notes": tuple(notes(token, presented=dialect.presents(token.token_type))) if token else (),
        "remedy": grant.login_command if state_of(grant) is State.REVOKED else grant.remedy,
        "advice": _advice(grant),
        "pending_revocations": len(record.pending_revocations),
        "variants": _living(grant, now) if record.downscoped else 0,
    }


def state_of(grant: LiveGrant) -> State:
    return State.MISCONFIGURED if grant.blocked else grant.record.state


def expires_at(token: AccessToken, now: Moment) -> float | None:
    """When the token expires, in Unix seconds by the wall clock of now; None: unknown."""
    return None if token.lifetime is None else round(wall_time(token.issued, now) + token.lifetime, 2)


def failing_since(grant: LiveGrant, now: Moment) -> float | None:
    record = grant.record
    since = record.failing_since if record.last_error and not grant.blocked else None
    return wall_time(since, now) if since else None


def _advice(grant: LiveGrant) -> str | None:
    says_itself = grant.remedy or grant.blocked or grant.unstored
    return None if says_itself else of_record(grant.record, state_of(grant))


def _revoked_at(grant: LiveGrant, now: Moment) -> float | None:
    record = grant.record
    return wall_time(record.changed, now) if record.state is State.REVOKED and record.changed else None


def _living(grant: LiveGrant, now: Moment) -> int:
    """How many downscoped tokens are alive."""
    return sum(grant.serves_downscoped(each.target, now) is not None for each in grant.record.downscoped)


def _dropped(grant: LiveGrant, token: AccessToken | None) -> tuple[str, ...]:
    """The requested scopes that the provider left out. An answer without a scope grants them all (RFC 6749 §5.1)."""
    requested = grant.settings.settings.get("scope")
    granted = token.scope if token else None
    if granted is None or is_cut(granted) or not isinstance(requested, list):
        return ()
    found = frozenset(granted)
    return tuple(each for each in requested if each not in found and not found.issuperset(each.split(",")))
