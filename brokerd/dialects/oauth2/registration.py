# Registers a client at a server with open registration (RFC 7591), and checks its answer.
from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from json import dumps

from brokerd.core.exchange.outcomes import Misconfigured, Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Answer, Request, Step, answered
from brokerd.core.secret import Secret
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.oauth2.browser_login import REDIRECT_URI
from brokerd.dialects.oauth2.discovery import names
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES
from brokerd.dialects.oauth2.outcomes import ISSUE_ERRORS, refusal

METHODS = ("none", "client_secret_basic", "client_secret_post")  # best first: without a secret none can leak
LOGINS = ("device_code", "authorization_code")  # of grant types; best first: a server has no browser


@dataclass(frozen=True, slots=True)
class Client:
    """A client as its server knows it. `secret_ends`: Unix seconds; None: never. The registration can be changed with
    `access_token` at `access_url` (RFC 7592)."""

    id: str
    auth_method: str
    grant_type: str
    secret: Secret | None = None
    secret_ends: float | None = None
    access_token: Secret | None = None
    access_url: str | None = None


Registration = Generator[Step, Answer, "Client | Outcome"]


def logins(metadata: Metadata) -> tuple[str, ...]:
    """The grant types of a login by a person that the server has endpoints for."""
    places = {"device_code": "device_authorization_endpoint", "authorization_code": "authorization_endpoint"}
    return tuple(each for each in LOGINS if places[each] in metadata.endpoints)


def register(metadata: Metadata, name: str, scope: Sequence[str]) -> Registration:
    """Registers a native application (RFC 8252) for all logins that the server has."""
    metadata_sent: dict[str, object] = {
        "client_name": name,
        "application_type": "native",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": [*(GRANT_TYPES[each].wire for each in logins(metadata)), "refresh_token"],
        "response_types": ["code"] if "authorization_code" in logins(metadata) else [],
        "token_endpoint_auth_method": next((each for each in METHODS if each in metadata.auth_methods), METHODS[1]),
    }
    if scope:
        metadata_sent["scope"] = " ".join(scope)
    head = (("Accept", "application/json"), ("Content-Type", "application/json"))
    url = metadata.endpoints["registration_endpoint"]
    request = Request("POST", url, head, dumps(metadata_sent).encode(), guarded=metadata.guarded)
    response = yield from answered(request)
    if later := answer_outcomes.later(response, "registration", request):
        return later
    found = answer_body.json_object(response)
    if not 200 <= response.status < 300 or found is None or "client_id" not in found:
        return refusal(response, "registration", ISSUE_ERRORS, request)
    read = _read(found, str(metadata_sent["token_endpoint_auth_method"]), logins(metadata))
    return answer_outcomes.strange(response, "registration", request) if read is None else read


def _read(found: dict[str, object], asked: str, offered: tuple[str, ...]) -> Client | Outcome | None:
    """RFC 7591 §3.2.1: the server says what it registered, which may differ from the request. None: no client."""
    method = found.get("token_endpoint_auth_method", asked)
    secret, own = _text(found.get("client_secret")), _text(found.get("registration_access_token"))
    client_id = _text(found.get("client_id"))
    if client_id is None:
        return None
    if method not in METHODS or (method != "none" and secret is None):
        words = "registration: the server wants a client authentication that needs more; register the client by hand"
        return Misconfigured(words)
    granted = names(found, "grant_types") or tuple(GRANT_TYPES[each].wire for each in offered)
    login = next((each for each in offered if GRANT_TYPES[each].wire in granted), None)
    if login is None:
        words = "registration: the server allows the client no login by a person; register the client by hand"
        return Misconfigured(words)
    return Client(
        id=client_id,
        auth_method=str(method),
        grant_type=login,
        secret=Secret(secret) if secret and method != "none" else None,
        secret_ends=answer_values.number(found.get("client_secret_expires_at")) or None,
        access_token=Secret(own) if own else None,
        access_url=_text(found.get("registration_client_uri")),
    )


def _text(value: object) -> str | None:
    """Visible ASCII and blanks (RFC 6749 appendix A.1, A.2), without blanks around it."""
    fits = isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
    return value if isinstance(value, str) and fits and 0 < len(value) <= answer_values.LONGEST_TOKEN else None
