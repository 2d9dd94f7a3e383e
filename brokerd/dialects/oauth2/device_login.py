# Login by device code (RFC 8628): a person types a code into a browser on any device; meanwhile brokerd asks for the
# tokens as often as the server allows, until the server has answered.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange.outcomes import Cause, Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.steps import Ask, Exchange, Response, Unanswered, Wait
from brokerd.core.secret import Secret
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import request_fields
from brokerd.dialects.oauth2.discovery import is_safe
from brokerd.dialects.oauth2.login import AuthorizationServer, finished
from brokerd.dialects.oauth2.outcomes import LOGIN_ERRORS, Reply, code, refusal

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0  # seconds between two tries where the server names none (RFC 8628 §3.2)
SHORTEST, LONGEST = 1.0, 60.0  # seconds of an interval, named by the server or grown by backoff
SLOWER = 5.0  # seconds more, for good, at each slow_down (RFC 8628 §3.5)
LONGEST_LIFE = 3_600.0  # seconds; somebody waits until the code is typed in
LONGEST_CODE, LONGEST_URL = 64, 2_000  # characters


@dataclass(frozen=True, slots=True)
class Begun:
    """The server's answer: `shown` is for the person, `code` for our requests. Times in seconds."""

    shown: Mapping[str, str | float]
    code: Secret
    lifetime: float
    interval: float


def log_in(server: AuthorizationServer, view: GrantView, requested: Mapping[str, str]) -> Exchange:
    # RFC 8628 §3.1 requires the client_id of a client that does not authenticate. Some servers want it always.
    client_id = view.credentials["client_id"].reveal()
    begin = request_fields.fields(view, "login") | {"client_id": client_id, **requested}
    reply = yield from server.post("device_authorization_endpoint", view, begin)
    if isinstance(reply, Misconfigured):
        return reply
    begun = _read(reply)
    if not isinstance(begun, Begun):
        return begun
    yield Ask("device", begun.shown, waits=False)
    fields = request_fields.fields(view, "exchange") | {"grant_type": GRANT_TYPE, "device_code": begun.code.reveal()}
    left, interval = begun.lifetime, begun.interval
    while left > 0:
        yield Wait(interval)
        left -= interval
        reply = yield from server.post(
            "token_endpoint", view, fields, secrets=(begun.code,), sends_stored=True, patient=True
        )
        if isinstance(reply, Misconfigured):
            return reply
        following = _next_interval(reply.response, interval)
        if following is None:
            return finished(server, view, reply, "device login")
        interval = following
    return RetryLater("device login: nobody confirmed the code in time; log in again", Cause.POSTPONED)


def _next_interval(response: Response | Unanswered, interval: float) -> float | None:
    """Seconds until the next request; None: no more. A code that was answered is never sent again, because some servers
    then revoke the tokens."""
    if isinstance(response, Unanswered):
        return min(2 * interval, max(interval, LONGEST))  # RFC 8628 §3.5 wants an exponential backoff
    if later := answer_outcomes.later(response, "device login"):
        return min(max(2 * interval, later.after or 0.0), max(interval, LONGEST))
    match code(response):
        case "authorization_pending":  # with 400 (RFC 8628 §3.5), and with 200 as some do
            return interval
        case "slow_down":
            return interval + SLOWER
        case _:
            return None


def _read(reply: Reply) -> Begun | Outcome:
    """RFC 8628 §3.2, and Google's older `verification_url`. What is shown to a person must be printable and short."""
    response, what = reply.response, "device authorization"
    assert isinstance(response, Response)
    if later := answer_outcomes.later(response, what, reply.request):
        return later
    found = answer_body.plain(response)
    if not 200 <= response.status < 300 or found is None or "error" in found:
        return refusal(response, what, LOGIN_ERRORS, reply.request)
    device_code, user_code = answer_values.token(found.get("device_code")), found.get("user_code")
    place = _url(reply, found.get("verification_uri", found.get("verification_url")))
    life = answer_values.number(found.get("expires_in"))
    fits = isinstance(user_code, str) and user_code.isprintable() and 0 < len(user_code) <= LONGEST_CODE
    if device_code is None or place is None or not fits or life is None or life <= 0:
        return answer_outcomes.strange(response, what, reply.request)
    shown: dict[str, str | float] = {"verification_uri": place, "user_code": str(user_code)}
    if complete := _url(reply, found.get("verification_uri_complete")):
        shown["verification_uri_complete"] = complete
    life = shown["expires_in"] = min(life, LONGEST_LIFE)
    named = answer_values.number(found.get("interval"))
    interval = INTERVAL if named is None else min(max(named, SHORTEST), LONGEST)
    return Begun(shown, Secret(device_code), life, interval)


def _url(reply: Reply, value: object) -> str | None:
    fits = isinstance(value, str) and len(value) <= LONGEST_URL and is_safe(reply.request.url, value)
    return value if isinstance(value, str) and fits else None
