# What an answer means by its status alone, for every dialect: try again later, or not in the provider's own form.
# Dialects use this for every answer that their own rules do not cover.
from __future__ import annotations

from brokerd.core.exchange.outcomes import Cause, IssuedToken, RetryLater
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.steps import Request, Response
from brokerd.dialects import answer_words
from brokerd.dialects.answer_values import dated, retry_after

SKEW = 10.0  # seconds between the provider's clock and ours that an error mentions (law 8)


def later(response: Response, what: str, request: Request | None = None) -> RetryLater | None:
    """The outcome of a status that means "later" whatever the body says; None for other statuses. With `request`, the
    body's message is shown, without the secrets of the request."""
    cause = LATER.get(response.status)
    if cause is None and response.status >= 500:
        cause = Cause.FAILED
    if cause is None:
        return None
    said = answer_words.said(response, request.secrets) if request else ""
    detail = f"{what}: the provider answered {response.status}" + (f": {said}" if said else "")
    return RetryLater(detail, cause, retry_after(response))


def refused(response: Response, what: str, said: str) -> str:
    """A refusal in words: what was refused, the provider's status and message, and whether the clocks differ, which
    alone makes servers refuse what is signed (law 8)."""
    return f"{what}: the provider answered {response.status}{said}{skew(response)}"


def strange(
    response: Response, what: str, request: Request | None = None, refresh_token: IssuedToken | None = None
) -> RetryLater:
    """The outcome of an answer that is not in the provider's own form (law 12). A 2xx may have brought tokens (law 3),
    and a refusal of a request with a password may be one of the password (law 7)."""
    status, after = response.status, retry_after(response)
    secrets = request.secrets if request else ()
    if response.cut is not None:
        return RetryLater(response.cut, Cause.UNANSWERED, after, refresh_token)
    kind = reason((response.header("content-type") or "no content type").split(";")[0], secrets)[:60]
    coding = response.header("content-encoding")
    size = f"{len(response.body)} bytes" + (f" in {reason(coding, secrets)[:20]}" if coding else "")
    detail = f"{what}: answered {status} with {kind}, {size}, which is not in the provider's format"
    if 300 <= status < 400 and (place := response.header("location")):
        detail += f", a redirect to {reason(place, secrets)}, which is not followed"
    elif said := answer_words.said(response, secrets):
        detail += f": {said}"
    if 200 <= status < 300:
        return RetryLater(detail, Cause.UNREADABLE, after, refresh_token)
    wordless = 400 <= status < 500 and not response.body.strip()
    unclear = wordless or (request is not None and request.password and status in MAYBE_REFUSED)
    return RetryLater(detail + skew(response), Cause.SILENT if unclear else Cause.STRANGE, after)


def skew(response: Response) -> str:
    """How much the answer's Date differs from our clock, if that is more than SKEW."""
    date = dated(response)
    if date is None or response.status >= 500:
        return ""
    behind = date - response.at.wall if date > response.at.wall else min(0.0, date + 1 - response.sent_at.wall)
    if abs(behind) <= SKEW:
        return ""
    return f" (this machine's clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} the provider's)"


MAYBE_REFUSED = (400, 401, 403, 422)  # how a password is refused by servers that have their own form for it


# With these statuses the provider, or something between it and us, asks to try again later.
LATER = {
    407: Cause.STRANGE,  # a proxy's
    408: Cause.UNANSWERED,
    425: Cause.LIMITED,
    429: Cause.LIMITED,
    502: Cause.UNAVAILABLE,
    503: Cause.UNAVAILABLE,
    504: Cause.UNAVAILABLE,
}
