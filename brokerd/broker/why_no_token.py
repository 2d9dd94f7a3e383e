# Why a grant has no token to serve, and what to do about it: the error that a caller sees.
from __future__ import annotations

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.advice import OTHERWISE, of_record, split
from brokerd.core.grant.history import failed_request_id
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import Store
from brokerd.core.timing.moment import Moment, seconds_until

STOPPING = "brokerd is stopping; try again when it is back"


def no_token(
    grant: LiveGrant, target: Target | None, now: Moment, store: Store, *, stopping: bool, problem: str
) -> Failure:
    """Why there is no token for `target` (None: the grant's own). `problem`: in words, if only waiting helps."""
    failure = _no_token(grant, target, now, store, stopping=stopping, problem=problem)
    failure.request_id = failed_request_id(grant.history) if grant.record.error else None
    return failure


def _no_token(
    grant: LiveGrant, target: Target | None, now: Moment, store: Store, *, stopping: bool, problem: str
) -> Failure:
    name, record = grant.name, grant.record
    why = f": {record.error}" if record.error else ""
    if grant.blocked:
        return Failure(Code.MISCONFIGURED, f"{name}: {grant.blocked}", name)
    if store.cut_off and record.state is not State.REVOKED:
        words = f"{name}: {store.trouble}: for so long that another host may have revoked it ([store] offline)"
        return Failure(Code.UNAVAILABLE, words, name, 5.0)
    if grant.stopped or record.state is State.REVOKED:
        words = f"{name} was revoked; to use it again: {grant.login_command}"
        return Failure(Code.REVOKED, words, name)
    if stopping:
        return Failure(Code.UNAVAILABLE, STOPPING, name, 1.0)
    if grant.unstored and store.trouble:
        why = f": the store cannot be written: {store.trouble}"
    plan = grant.plan(now, for_caller=True, target=target)
    if not store.adopted and plan and grant.ability(now, target).sends_stored(plan.operation):
        words = f"{name}: the store was restored or copied to this machine, so no stored token is sent; brokerctl adopt"
        return Failure(Code.UNAVAILABLE, words, name, 60.0)
    if target is not None and (refusal := grant.downscoped.refusal(target, now)) is not None:
        words = f"{name}: its provider gives no token for {target}: {refusal.reason}"
        return Failure(Code.BAD_REQUEST, words, name, seconds_until(refusal.until, now))
    match record.state:
        case State.NEEDS_LOGIN:
            words = f"{name} needs a login{why}; to fix: {grant.remedy}"
            return Failure(Code.NEEDS_LOGIN, words, name)
        case State.MISCONFIGURED:
            error = record.error or "its last exchange failed"
            to_fix = "" if split(error)[1] else f"; to fix: {of_record(record, record.state) or OTHERWISE}"
            words = f"{name} is misconfigured: {error}{to_fix}"
            return Failure(Code.MISCONFIGURED, words, name)
        case State.READY if record.access_token and (final := grant.dialect.unrenewable(grant.view(now))):
            return Failure(Code.MISCONFIGURED, f"{name}: {final}", name)  # its API refused it
        case _:
            if grant.remedy:
                why += f"; to log in at once: {grant.remedy}"
            elif record.uncertain and plan and plan.delay > 0:
                why += "; an interrupted exchange may have used up its refresh token, which is not risked yet"
            after = max(1.0, plan.delay if plan else 0.0, grant.early_renewal_wait(target, now))
            return Failure(Code.UNAVAILABLE, f"{name} {problem}{why}", name, after)


def not_refreshed(grant: LiveGrant, now: Moment) -> str:
    """Why a refresh brought no new token while the present one is alive."""
    since = grant.early_renewal_at
    if since is None or grant.record.error or grant.early_renewal_wait(None, now) <= 0:
        return "was not refreshed and keeps its token"
    ago = max(0.0, -seconds_until(since, now))
    return f"was renewed {ago:.0f} s ago; a token that lives is renewed for callers once in a third of its life"


def check_min_ttl(grant: LiveGrant, token: AccessToken | None, min_ttl: float) -> None:
    """Raises Failure for more than half of a token's lifetime: renewals come too late for that."""
    if token is not None and token.lifetime is not None and min_ttl > token.lifetime / 2:
        half = f"{token.lifetime / 2:g} s, half of the token's lifetime"
        words = f"min_ttl: expected at most {half}, found {min_ttl:g}; ask for less"
        raise Failure(Code.BAD_REQUEST, words, grant.name)


def check_import(grant: LiveGrant) -> None:
    """Raises Failure for a grant that renews by no refresh token."""
    settings = grant.settings.settings
    if grant.dialect.takes_import(settings):
        return
    needs_nobody = grant.can_issue() and grant.record.state is not State.REVOKED
    again = f"brokerctl refresh {grant.name}" if needs_nobody else grant.login_command
    kind = f"grant_type {settings['grant_type']}" if "grant_type" in settings else f"provider {grant.provider.name}"
    words = f"{grant.name}: a grant of this kind ({kind}) is renewed by no refresh token, so there is nothing to import"
    raise Failure(Code.BAD_REQUEST, f"{words}; use instead: {again}", grant.name)


def check_target(grant: LiveGrant, target: Target, now: Moment) -> None:
    """Raises Failure for a downscoped token that the grant can never have."""
    scope = grant.settings.settings.get("scope")
    if not target.within(scope):
        own = " ".join(map(str, scope)) if isinstance(scope, list | tuple) else ""
        words = f"{grant.name}: expected a part of the grant's own scope ({own}), found {target}"
        words += "; ask for a part of it, or add the scope to the grant in the configuration"
        raise Failure(Code.BAD_REQUEST, words, grant.name)
    if (lacks := grant.dialect.lacks(grant.view(now, target))) is not None:
        raise Failure(Code.BAD_REQUEST, f"{grant.name}: no token for {target}: {lacks}", grant.name)
