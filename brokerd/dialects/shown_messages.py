# What a person who follows an exchange sees of its requests and answers (brokerctl trace): names, and only those values
# that are known to be harmless. Everything else is hidden, whatever it is (law 11). Pure.
from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from urllib.parse import parse_qsl, urlsplit

from brokerd.core.exchange.redaction import SHORTEST_SECRET, reason
from brokerd.core.exchange.request_ids import shows
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.answer_body import plain

MOST = 64  # fields and texts of a message. Nothing is shown of a message with more: looking for secrets takes time
LARGEST = 300 * 1024  # bytes of such a message
LONG_ENOUGH = 20  # characters; how long a shorter secret is might help to guess it
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,40}")  # a body that is one value and no form has no such name
# Values that are shown, as far as they hold no secret of the message. The words of a provider are among them.
HARMLESS = frozenset(
    {
        *("grant_type", "response_type", "token_type", "token_type_hint", "issued_token_type", "requested_token_type"),
        *("subject_token_type", "actor_token_type", "client_assertion_type", "code_challenge_method", "scope"),
        *("audience", "resource", "expires_in", "refresh_expires_in", "refresh_token_expires_in", "ext_expires_in"),
        *("expires_at", "expires", "expiration", "not-before-policy", "interval", "active", "exp", "iat", "nbf"),
        *("error", "error_description", "error_code", "error_codes", "message", "status", "reason", "detail", "title"),
    }
)
# Names in an answer that are shown without their values. The provider chose its names, so all others are only counted.
KNOWN = HARMLESS | {
    *("access_token", "refresh_token", "id_token", "token", "device_code", "user_code", "session_state", "jwt"),
    *("client_id", "client_secret", "sub", "username", "errors", "data", "Credentials", "auth", "instance_url"),
    *("verification_uri", "verification_uri_complete", "error_uri", "correlation_id", "trace_id", "timestamp"),
}
HEADERS = (  # of an answer; the values of the first three are shown
    *("content-type", "retry-after", "date"),
    *("www-authenticate", "location", "dpop-nonce", "set-cookie"),
)
HIDDEN = "(hidden)"
SIMPLE = (str, int, float)
NEVER = Moment(0.0, 0.0, "")
HEADER_VALUE = re.compile(r"[A-Za-z0-9 ,:;=/.+-]{1,64}")


def request_shown(request: Request) -> dict[str, object]:
    """The names of a request are those of its recipe and configuration, so they are shown if they hold no secret."""
    fields = _fields(_as_answer(request))
    hidden = _hidden(fields, request.secrets)
    return {
        "method": request.method,
        "url": url_shown(request),
        "headers": [_name(name, request.secrets) for name, _ in request.headers],
        "fields": {_name(name, request.secrets): _value(name, value, hidden) for name, value in fields.items()},
        "bytes": len(request.body),
    }


def url_shown(request: Request) -> str:
    """Without the values in its query; a secret in its path is hidden."""
    parts = urlsplit(request.url)
    secrets = [secret for secret in request.secrets if len(secret.reveal()) >= SHORTEST_SECRET]
    host = HIDDEN if any(secret.reveal() in parts.netloc for secret in secrets) else parts.netloc
    path = "/".join(HIDDEN if _holds(each, secrets) else each for each in parts.path.split("/"))
    query = dict(parse_qsl(parts.query, keep_blank_values=True)[:MOST])
    hidden = _hidden(query, secrets)
    asked = "&".join(f"{_name(name, secrets)}={_value(name, value, hidden)}" for name, value in query.items())
    return f"{parts.scheme}://{host}{path}{'?' if asked else ''}{asked}"


def answer_shown(response: Response, request: Request, own_id: str | None) -> dict[str, object]:
    """A hostile answer may repeat the secrets of the request, and a recipe may take a token from where others have
    harmless values. `own_id`: the provider's request id."""
    fields, places = _fields(response), request.secret_places
    headers = {name: value for name in HEADERS if (value := response.header(name)) is not None}
    taken = {name: value for name, value in headers.items() if f"header:{name}" in places}
    hidden = (*_hidden(fields, request.secrets, places), *_hidden(taken, (), places))
    body = {name: _value(name, value, hidden, places) for name, value in fields.items() if name in KNOWN}
    headers = {name: _header(name, value, hidden) for name, value in headers.items()}
    found: dict[str, object] = {"status": response.status, "headers": headers, "fields": body}
    if own_id is not None and not shows(own_id, hidden):
        found["provider_request_id"] = own_id
    return found | {"more_fields": len(fields) - len(body), "bytes": len(response.body)}


def _as_answer(request: Request) -> Response:
    """So that a body is read in one way, whoever sends it."""
    return Response(0, (), request.body, NEVER, NEVER)


def _fields(message: Response) -> dict[str, object]:
    """The fields of a form or of a JSON object; empty for anything else."""
    found = dict(plain(message) or {}) if len(message.body) <= LARGEST else {}
    return found if sum(1 for _ in islice(_leaves(found), MOST + 1)) <= MOST else {}


def _name(name: str, secrets: Iterable[Secret]) -> str:
    return name if NAME.fullmatch(name) and not _holds(name, secrets) else HIDDEN


def _holds(text: str, secrets: Iterable[Secret]) -> bool:
    """Whether a secret is in it, or something that looks like a token."""
    return reason(text, secrets) != text


def _header(name: str, value: str, hidden: Iterable[Secret]) -> str:
    return value if name in HEADERS[:3] and HEADER_VALUE.fullmatch(value) and not shows(value, hidden) else HIDDEN


def _value(name: str, value: object, hidden: Iterable[Secret], secret: Collection[str] = ()) -> str:
    if name in HARMLESS and name not in secret and (text := _text(value)) is not None:
        return reason(text, hidden)
    if value == "":
        return "(empty)"
    is_long = isinstance(value, str) and len(value) >= LONG_ENOUGH
    return f"(hidden, {len(value)} characters)" if is_long else HIDDEN  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    """A value of one line. None: it has parts of its own."""
    if isinstance(value, list):
        return " ".join(map(str, value)) if all(isinstance(each, SIMPLE) for each in value) else None
    return str(value) if isinstance(value, SIMPLE) else None


def _hidden(fields: Mapping[str, object], known: Iterable[Secret], secret: Collection[str] = ()) -> tuple[Secret, ...]:
    """Every text that must not be seen: the known secrets, and what is hidden of the message anyway."""
    seen = HARMLESS.difference(secret)
    covered = {name: value for name, value in fields.items() if name not in seen or _text(value) is None}
    return (*known, *(Secret(each) for each in _leaves(covered) if len(each) >= SHORTEST_SECRET))


def _leaves(value: object) -> Iterator[str]:
    """The texts and numbers within a value."""
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(each)
    elif isinstance(value, SIMPLE):
        yield str(value)
