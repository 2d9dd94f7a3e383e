# The device's way to log in (RFC 8628): a code that a person types in wherever he has a browser, while we ask for its
# tokens no oftener than the server likes, and never again once it has answered.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange import Ask, Exchange, Response, Unanswered, Wait
from brokerd.core.outcome import Cause, Misconfigured, Outcome, RetryLater
from brokerd.core.secret import Secret
from brokerd.dialects import answer, body
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import added
from brokerd.dialects.oauth2.answers import LOGIN_ERRORS, Heard, code, refusal
from brokerd.dialects.oauth2.discovery import is_safe
from brokerd.dialects.oauth2.login import Server, finished

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0  # seconds between two tries where the server names none (RFC 8628 §3.2)
SHORTEST, LONGEST = 1.0, 60.0  # seconds; of what a server names or we come to by ourselves
SLOWER = 5.0  # seconds more, for good, at each slow_down (RFC 8628 §3.5)
LONGEST_LIFE = 3_600.0  # seconds; a code is typed in by somebody who waits for it
LONGEST_CODE, LONGEST_URL = 64, 2_000  # characters


@dataclass(frozen=True, slots=True)
class Begun:
    """What the server gave: something for the person, and the code that we ask with. Times are in seconds."""

    shown: Mapping[str, str | float]
    code: Secret
    lifetime: float
    interval: float


def device(server: Server, view: GrantView, wanted: Mapping[str, str]) -> Exchange:
    # RFC 8628 §3.1 wants the client_id where the client does not authenticate. Some servers want it beside that too.
    client_id = view.credentials["client_id"].reveal()
    begin = added.fields(view, "login") | {"client_id": client_id, **wanted}
    heard = yield from server.post("device_authorization_endpoint", view, begin)
    if isinstance(heard, Misconfigured):
        return heard
    begun = _read(heard)
    if not isinstance(begun, Begun):
        return begun
    yield Ask("device", begun.shown, waits=False)
    fields = added.fields(view, "exchange") | {"grant_type": GRANT_TYPE, "device_code": begun.code.reveal()}
    left, interval = begun.lifetime, begun.interval
    while left > 0:
        yield Wait(interval)
        left -= interval
        heard = yield from server.post("token_endpoint", view, fields, secrets=(begun.code,), spends=True, patient=True)
        if isinstance(heard, Misconfigured):
            return heard
        slower = _slower(heard.response, interval)
        if slower is None:
            return finished(server, view, heard, "device login")
        interval = slower
    return RetryLater("device login: nobody confirmed the code in time", Cause.POSTPONED)


def _slower(response: Response | Unanswered, interval: float) -> float | None:
    """Seconds until the next try; None where there is to be none: a code that was answered is never sent again, for
    some servers then take back what they gave."""
    if isinstance(response, Unanswered):
        return min(2 * interval, max(interval, LONGEST))  # RFC 8628 §3.5 wants an exponential backoff
    if later := answer.later(response, "device login"):
        return min(max(2 * interval, later.after or 0.0), max(interval, LONGEST))
    match code(response):
        case "authorization_pending":  # with 400 (RFC 8628 §3.5), and with 200 as some do
            return interval
        case "slow_down":
            return interval + SLOWER
        case _:
            return None


def _read(heard: Heard) -> Begun | Outcome:
    """RFC 8628 §3.2, and Google's older `verification_url`. What is shown to a person must be fit for it."""
    response, what = heard.response, "device authorization"
    assert isinstance(response, Response)
    if later := answer.later(response, what, heard.request):
        return later
    found = body.plain(response)
    if not 200 <= response.status < 300 or found is None or "error" in found:
        return refusal(response, what, LOGIN_ERRORS, heard.request)
    device_code, user_code = answer.token(found.get("device_code")), found.get("user_code")
    place = _url(heard, found.get("verification_uri", found.get("verification_url")))
    life = answer.number(found.get("expires_in"))
    fits = isinstance(user_code, str) and user_code.isprintable() and 0 < len(user_code) <= LONGEST_CODE
    if device_code is None or place is None or not fits or life is None or life <= 0:
        return answer.strange(response, what, heard.request)
    shown: dict[str, str | float] = {"verification_uri": place, "user_code": str(user_code)}
    if complete := _url(heard, found.get("verification_uri_complete")):
        shown["verification_uri_complete"] = complete
    life = shown["expires_in"] = min(life, LONGEST_LIFE)
    named = answer.number(found.get("interval"))
    interval = INTERVAL if named is None else min(max(named, SHORTEST), LONGEST)
    return Begun(shown, Secret(device_code), life, interval)


def _url(heard: Heard, value: object) -> str | None:
    fits = isinstance(value, str) and len(value) <= LONGEST_URL and is_safe(heard.request.url, value)
    return value if isinstance(value, str) and fits else None
