# Reads what an OAuth 2.0 server answers: tokens (RFC 6749 §5.1), errors (§5.2), and what real servers do beyond them.
# refusals.py has the forms of refusals.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from brokerd.core.exchange.outcomes import (
    Blame,
    Cause,
    Done,
    IssuedToken,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Tokens,
    Unsupported,
)
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.steps import Request, Response, Unanswered
from brokerd.core.secret import Secret
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.answer_fields import NOTHING, Wanted, hiding, with_fields
from brokerd.dialects.oauth2 import refusals

Errors = Mapping[str, type[Outcome]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A request and its answer. `method`: the client authentication that was used."""

    request: Request
    response: Response | Unanswered
    method: str = "none"


def tokens(response: Response, what: str, errors: Errors, request: Request, fields: Wanted = NOTHING) -> Outcome:
    """RFC 6749 §5.1, and what real servers do beyond it: errors with status 200, forms, tokens in a wrapping. A
    refresh token is kept even if the rest cannot be used (law 3). `fields` are members of the answer."""
    found = answer_body.plain(response)
    request = hiding(request, (found.get(name) for name in fields.names)) if found else request
    if later := answer_outcomes.later(response, what, request):
        whole = response.status >= 500 and found and answer_values.token(found.get("access_token"))
        return replace(later, refresh_token=_refresh_token(found)) if found and whole else later
    if not 200 <= response.status < 300 or (found and _refuses(found)):
        return refusal(response, what, errors, request)
    if found is None or not found.keys() & {"access_token", "refresh_token"}:
        found = answer_body.wrapped(response) or {}
    value, refresh = answer_values.token(found.get("access_token")), _refresh_token(found)
    if value is None or answer_values.is_unreadable(found.get("refresh_token")):
        return answer_outcomes.strange(response, what, request, refresh)
    expires_in = found.get("expires_in")
    lifetime, odd = answer_values.lifetime_in(expires_in), answer_values.odd_lifetime(expires_in)
    if lifetime is None or lifetime <= 0:
        by_itself = answer_values.lifetime_of_jwt(value, response)
        if lifetime is None or (by_itself is not None and by_itself > 0):
            lifetime, odd = by_itself, odd if by_itself is None else None
    brought = Tokens(
        access_token=IssuedToken(Secret(value), lifetime, lifetime_warning=odd),
        refresh_token=refresh,
        token_type=answer_values.token_type(found.get("token_type")),
        scope=answer_values.scope(found.get("scope")),
    )
    return with_fields(brought, fields, found.get, what)


def _refuses(found: Mapping[str, object]) -> bool:
    """Whether a 2xx is an error: some servers send errors with 200, or beside a token that is null."""
    return bool(found.keys() & {"error", "errors"}) and found.get("access_token") in (None, "")


def _refresh_token(found: Mapping[str, object]) -> IssuedToken | None:
    value = answer_values.token(found.get("refresh_token"))
    lifetime = answer_values.lifetime_in(found.get("refresh_expires_in", found.get("refresh_token_expires_in")))
    return IssuedToken(Secret(value), lifetime if lifetime and lifetime > 0 else None) if value else None


def revoked(response: Response, request: Request) -> Outcome:
    """RFC 7009 §2.2: 200 also for a token that is dead already."""
    found = answer_body.json_object(response)
    reply = not response.body.strip() if found is None else not _refuses(found)
    return Done() if 200 <= response.status < 300 and reply else refusal(response, "revocation", REVOKE_ERRORS, request)


def active(response: Response, request: Request) -> Outcome:
    """RFC 7662 §2.2: not active is also what a server says of a token that this client may not ask about."""
    found = (answer_body.json_object(response) or {}).get("active")
    if 200 <= response.status < 300 and isinstance(found, bool):
        return Done() if found else Rejected("introspection: the provider answered that it is not active")
    return refusal(response, "introspection", ISSUE_ERRORS, request)


def code(response: Response) -> str | None:
    """The error code of RFC 6749 §5.2 whatever the status, None where there is none that the protocol knows."""
    found = refusals.read(response, any_status=True)
    return found.code if found else None


def refusal(response: Response, what: str, errors: Errors, request: Request) -> Outcome:
    """RFC 6749 §5.2. An answer without a code that the protocol knows is not the provider's (law 12)."""
    found = refusals.read(response, refreshing=errors is RENEW_ERRORS, any_status=errors is LOGIN_ERRORS)
    if found is None or found.code is None or 300 <= response.status < 400:
        return answer_outcomes.strange(response, what, request)
    text = f"{found.written}: {found.description}" if found.description else found.written
    said = answer_outcomes.refused(response, what, f" {reason(text, request.secrets)}")
    meaning, after = errors.get(found.code, Misconfigured), answer_values.retry_after(response)
    if meaning is RetryLater:
        return RetryLater(said, Cause.FAILED, after)
    if meaning is Misconfigured:
        return Misconfigured(said, _blamed(found.code, request), after)
    if meaning is Done:
        return Done()
    return Rejected(said) if meaning is Rejected else Unsupported(said)


def _blamed(code: str, request: Request) -> Blame:
    """What was refused. Some servers answer `invalid_request` to a wrong password."""
    if code in CLIENTS_FAULTS:
        return Blame.CLIENT
    if request.password and code in PASSWORDS_FAULTS:
        return Blame.PASSWORD
    # Without a password, what is refused is an assertion or the token of another server.
    return Blame.CLIENT if code == "invalid_grant" else Blame.REQUEST


CLIENTS_FAULTS = ("invalid_client", "unauthorized_client")
PASSWORDS_FAULTS = ("invalid_grant", "invalid_request", "access_denied", "interaction_required")

# What an error code means (RFC 6749 §5.2 and §4.1.2.1, RFC 8628 §3.5, RFC 7009 §2.2.1); one that is not here is
# Misconfigured.
ISSUE_ERRORS: Errors = {
    "temporarily_unavailable": RetryLater,
    "server_error": RetryLater,
    "slow_down": RetryLater,
}
LOGIN_ERRORS: Errors = {
    **ISSUE_ERRORS,
    "access_denied": Rejected,
    "expired_token": RetryLater,  # RFC 8628 §3.5: another login has another code
    "invalid_grant": Rejected,
}
RENEW_ERRORS: Errors = {**ISSUE_ERRORS, "invalid_grant": Rejected}
REVOKE_ERRORS: Errors = {**ISSUE_ERRORS, "unsupported_token_type": Unsupported, "invalid_grant": Done}
