# Reading what an OAuth 2.0 server answers: tokens (RFC 6749 §5.1), errors (§5.2), and what real servers do beyond them.
# Which request was answered is the caller's matter.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange import Request, Response, Unanswered
from brokerd.core.outcome import (
    Cause,
    Done,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Token,
    Tokens,
    Unsupported,
)
from brokerd.core.reason import reason
from brokerd.core.secret import Secret
from brokerd.dialects import answer

Errors = Mapping[str, type[Outcome]]


@dataclass(frozen=True, slots=True)
class Heard:
    """A request and what came of it."""

    request: Request
    response: Response | Unanswered


def tokens(response: Response, what: str, errors: Errors, request: Request) -> Outcome:
    """RFC 6749 §5.1, and what real servers do beyond it: `expires_in` as text, errors with status 200."""
    body = answer.json_object(response)
    if not 200 <= response.status < 300 or (body and "error" in body and "access_token" not in body):
        return refusal(response, what, errors, request)
    value = answer.token(body.get("access_token")) if body else None
    if body is None or value is None or answer.is_unreadable(body.get("refresh_token")):
        return answer.strange(response, what, request.secrets)
    lifetime = answer.lifetime_in(body.get("expires_in"))
    if lifetime is None:
        lifetime = answer.lifetime_of_jwt(value, response)
    refresh = answer.token(body.get("refresh_token"))
    refresh_lifetime = answer.lifetime_in(body.get("refresh_expires_in", body.get("refresh_token_expires_in")))
    return Issued(
        Tokens(
            access_token=Token(Secret(value), lifetime),
            refresh_token=Token(Secret(refresh), refresh_lifetime or None) if refresh else None,
            token_type=answer.token_type(body.get("token_type")),
            scope=answer.scope(body.get("scope")),
        )
    )


def revoked(response: Response, request: Request) -> Outcome:
    """RFC 7009 §2.2: 200 also for a token that is dead already."""
    body = answer.json_object(response)
    heard = not response.body.strip() if body is None else "error" not in body
    return Done() if 200 <= response.status < 300 and heard else refusal(response, "revocation", REVOKE_ERRORS, request)


def active(response: Response, request: Request) -> Outcome:
    """RFC 7662 §2.2: not active is also what a server says of a token that this client may not ask about."""
    found = (answer.json_object(response) or {}).get("active")
    if 200 <= response.status < 300 and isinstance(found, bool):
        return Done() if found else Rejected("introspection: the provider answered that it is not active")
    return refusal(response, "introspection", ISSUE_ERRORS, request)


def code(response: Response) -> str | None:
    """The error code of RFC 6749 §5.2, None where there is none."""
    found = (answer.json_object(response) or {}).get("error")
    return found if isinstance(found, str) and found else None


def refusal(response: Response, what: str, errors: Errors, request: Request) -> Outcome:
    """RFC 6749 §5.2. An answer without an error code is not the provider's (law 12)."""
    error, body = code(response), answer.json_object(response) or {}
    if error is None or 300 <= response.status < 400:
        return answer.strange(response, what, request.secrets)
    described = body.get("error_description")
    words = reason(f"{error}: {described}" if isinstance(described, str) else error, request.secrets)
    said = f"{what}: the provider answered {response.status} {words}"
    match errors.get(error, Misconfigured):
        case answer_type if answer_type is RetryLater:
            return RetryLater(said, Cause.FAILED, answer.retry_after(response))
        case answer_type if answer_type is Rejected:
            return Rejected(said)
        case answer_type if answer_type is Done:
            return Done()
        case answer_type if answer_type is Unsupported:
            return Unsupported(said)
        case _:
            return Misconfigured(said)


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
