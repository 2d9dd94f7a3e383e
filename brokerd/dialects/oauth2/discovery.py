# Learning what an issuer supports (RFC 8414 §3, OpenID Connect Discovery 1.0 §4). Its document is an outsider's text:
# the issuer in it must match, its URLs must be as safe as the issuer's, and new origins need an operator's word.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from brokerd.core.exchange import Discovery, Request, Response, answered
from brokerd.core.metadata import ENDPOINTS, Metadata, origins, stray
from brokerd.core.outcome import Misconfigured, Outcome
from brokerd.core.reason import reason
from brokerd.dialects import answer

NOT_HERE = (400, 401, 403, 404, 405, 406, 410)  # the document is not at this place: the other one is tried


def learn(issuer: str, known: Metadata | None) -> Discovery:
    """The issuer's metadata; an outcome where there is none to be had or to be believed."""
    places = tuple(_well_known(issuer))
    for url in places:
        response = yield from answered(Request("GET", url, (("Accept", "application/json"),)))
        if later := answer.later(response, "discovery"):
            return later
        if 200 <= response.status < 300:
            return _read(issuer, known, response)
        if response.status not in NOT_HERE:
            return answer.strange(response, "discovery", ())
    words = "if it has none, write token_url in the place of issuer"
    return Misconfigured(f"discovery: no metadata at {' or '.join(places)}; {words}")


def _well_known(issuer: str) -> Iterator[str]:
    """RFC 8414 §3.1 puts the suffix before the issuer's path, OpenID Connect Discovery §4 behind it."""
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{host}/.well-known/oauth-authorization-server{path}"
    yield f"{host}{path}/.well-known/openid-configuration"
    if path:
        yield f"{host}/.well-known/openid-configuration{path}"  # RFC 8414 §5: what some do


def _read(issuer: str, known: Metadata | None, response: Response) -> Metadata | Outcome:
    body = answer.json_object(response)
    if body is None or not isinstance(body.get("issuer"), str):
        return answer.strange(response, "discovery", ())
    if body["issuer"] != issuer:
        named = reason(str(body["issuer"]), ())
        return Misconfigured(f'discovery: the document names the issuer "{named}", expected "{issuer}" (RFC 8414 §3.3)')
    aliased = body.get("mtls_endpoint_aliases")
    try:
        endpoints = dict(_endpoints(issuer, body))
        aliases = dict(_endpoints(issuer, aliased)) if isinstance(aliased, dict) else {}
    except _Unsafe as error:
        return Misconfigured(f"discovery: {error}")
    if "token_endpoint" not in endpoints:
        return Misconfigured("discovery: the document names no token_endpoint; write token_url beside issuer")
    found = Metadata(
        issuer=issuer,
        fetched=response.sent_at,
        endpoints=endpoints,
        aliases=aliases,
        auth_methods=names(body, "token_endpoint_auth_methods_supported") or ("client_secret_basic",),
        signing_algorithms=names(body, "token_endpoint_auth_signing_alg_values_supported"),
        names_issuer=body.get("authorization_response_iss_parameter_supported") is True,
        wants_pushed=body.get("require_pushed_authorization_requests") is True,
        origins=known.origins if known and known.origins else origins(endpoints, aliases),
        public=response.public,
        agreed=known is not None and known.agreed,
    )
    if strange := stray(known, found):
        words = "it was not named when this provider was first met; if it is right: brokerctl trust, then its name"
        return Misconfigured(f"discovery: {strange} is new: {words}")
    return replace(found, public=found.public or (known is not None and known.public))


class _Unsafe(Exception):
    """A URL that must not be used."""


def _endpoints(issuer: str, body: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name in ENDPOINTS:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not is_safe(issuer, value):
            shown = reason(str(value), ())
            raise _Unsafe(f'{name}: expected an https:// URL without user and fragment, found "{shown}"')
        yield name, value


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
