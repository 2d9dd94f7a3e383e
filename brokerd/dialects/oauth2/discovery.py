# Reads an issuer's metadata (RFC 8414 §3, OpenID Connect Discovery 1.0 §4). The document is not trusted: the issuer in
# it must match, its URLs must be as safe as the issuer's, and an operator must agree to new origins.
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from brokerd.core.exchange.outcomes import Cause, Misconfigured, RetryLater
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.server_metadata import ENDPOINTS, Metadata, origins, stray
from brokerd.core.exchange.steps import Discovery, Request, Response, answered
from brokerd.dialects import answer_outcomes
from brokerd.dialects.answer_body import json_object

NOT_HERE = (400, 401, 403, 404, 405, 406, 410)  # the document is not at this place
BASIC = ("client_secret_basic",)  # RFC 8414 §2: the default
TOKEN_ENDPOINT = ("token_endpoint",)
NO_METADATA = "check issuer, or write token_url if the server has no metadata"


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why the answer of one place is not used. If no other place has a document, the outcome is `later`, or that
    somebody must do what `remedy` says. Neither: there is no document at this place."""

    words: str
    later: RetryLater | None = None
    remedy: str | None = None


def learn(issuer: str, known: Metadata | None, needed: Iterable[str] = TOKEN_ENDPOINT) -> Discovery:
    """The issuer's metadata: the first usable document at the places of the standards, else an outcome. `needed`: the
    endpoints that it must have."""
    refused: list[_Refused] = []
    said: list[str] = []
    for url in _well_known(issuer):
        response = yield from answered(Request("GET", url, (("Accept", "application/json"),)))
        if (limited := answer_outcomes.later(response, "discovery")) and limited.cause is Cause.LIMITED:
            return limited
        found = _read(issuer, known, response, needed)
        if not isinstance(found, _Refused):
            return found
        refused.append(found)
        said.append(f"{url} {found.words}")
    words = f"discovery: {' and '.join(said)}"
    for each in refused:  # a document with a mistake says more than an outage at another place
        if each.remedy is not None:
            return Misconfigured(f"{words}; {each.remedy}")
    for each in refused:
        if each.later is not None:
            return replace(each.later, reason=words)
    if known and known.endpoints:  # it was there before, and may be there again
        return RetryLater(words, Cause.STRANGE)
    return Misconfigured(f"{words}; {NO_METADATA}")


def _well_known(issuer: str) -> Iterator[str]:
    """RFC 8414 §3.1 puts the suffix before the issuer's path, OpenID Connect Discovery §4 behind it."""
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{host}/.well-known/oauth-authorization-server{path}"
    yield f"{host}{path}/.well-known/openid-configuration"
    if path:
        yield f"{host}/.well-known/openid-configuration{path}"  # RFC 8414 §5: what some do


def _read(
    issuer: str, known: Metadata | None, response: Response, needed: Iterable[str]
) -> Metadata | Misconfigured | _Refused:
    body = json_object(response)
    if not 200 <= response.status < 300 or body is None or not isinstance(body.get("issuer"), str):
        return _Refused(_seen(response), _later(response))
    if body["issuer"] != issuer:
        named = reason(str(body["issuer"]), ())
        words = f'names the issuer "{named}", expected "{issuer}" (RFC 8414 §3.3)'
        return _Refused(words, remedy="if the first is right, write it as issuer")
    aliased = body.get("mtls_endpoint_aliases")
    endpoints, unusable = _endpoints(issuer, body)
    aliases, no_aliases = _endpoints(issuer, aliased if isinstance(aliased, dict) else {})
    for name in needed:
        if name not in endpoints:
            remedy = f"write {name.removesuffix('endpoint')}url beside issuer"
            return _Refused(unusable.get(name) or f"names no {name}", remedy=remedy)
    found = Metadata(
        issuer=issuer,
        fetched=response.sent_at,
        endpoints=endpoints,
        aliases=aliases,
        unusable={**no_aliases, **unusable},
        auth_methods=names(body, "token_endpoint_auth_methods_supported") or BASIC,
        endpoint_auth_methods={
            "revocation_endpoint": names(body, "revocation_endpoint_auth_methods_supported") or BASIC,
            "introspection_endpoint": names(body, "introspection_endpoint_auth_methods_supported"),
        },
        signing_algorithms=names(body, "token_endpoint_auth_signing_alg_values_supported"),
        names_issuer=body.get("authorization_response_iss_parameter_supported") is True,
        offers_offline_access="offline_access" in names(body, "scopes_supported"),
        wants_pushed=body.get("require_pushed_authorization_requests") is True,
        origins=known.origins if known and known.origins else origins(endpoints, aliases),
        public=response.public,
        agreed=known is not None and known.agreed,
    )
    if strange := stray(known, found):
        words = "which it did not name at first; if that is right: brokerctl trust, then the provider's name"
        return Misconfigured(f"discovery: the metadata now names {strange}, {words}")
    return replace(found, public=found.public or (known is not None and known.public))


def _later(response: Response) -> RetryLater | None:
    if response.status in NOT_HERE:
        return None
    return answer_outcomes.later(response, "discovery") or answer_outcomes.strange(response, "discovery")


def _seen(response: Response) -> str:
    """An answer without metadata, in words."""
    if not 200 <= response.status < 300:
        where = response.header("location") if 300 <= response.status < 400 else None
        return f"answered {response.status}" + (f" (Location: {reason(where)})" if where else "")
    kind = (response.header("content-type") or "no content type").split(";")[0]
    return f"answered {response.status} with {reason(kind)[:60]}, {len(response.body)} bytes, which is no metadata"


def _endpoints(issuer: str, body: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    """The URLs that may be used, and what is wrong with the others. Those matter only when they are needed: servers
    write "" or a list for what they do not have."""
    usable, unusable = {}, {}
    for name in ENDPOINTS:
        value = body.get(name)
        if isinstance(value, str) and is_safe(issuer, value):
            usable[name] = value
        elif value is not None:
            shown = reason(str(value), ())[:200]
            unusable[name] = f'names as {name} "{shown}", expected an https:// URL without user and fragment'
    return usable, unusable


def is_safe(issuer: str, url: str) -> bool:
    """https; http only where the issuer (or another place of the server) is asked over http, which the HTTP client
    allows on loopback alone."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and issuer.startswith("http://")
        named = bool(parts.hostname) and parts.port != 0 and parts.username is None and parts.password is None
    except ValueError:
        return False
    return (parts.scheme == "https" or plain) and named and not parts.fragment and url.isascii() and url.isprintable()


def names(body: dict[str, object], key: str) -> tuple[str, ...]:
    found = body.get(key)
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
