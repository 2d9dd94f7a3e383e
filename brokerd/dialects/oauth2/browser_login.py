# Login in a browser: an authorization code (RFC 6749 §4.1) with PKCE (RFC 7636, S256), `state`, the issuer in
# the answer (RFC 9207) and a redirect to a loopback port (RFC 8252 §7.3). brokerctl listens there, not the daemon.
from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Generator, Mapping
from hmac import compare_digest
from urllib.parse import urlencode, urlsplit, urlunsplit

from brokerd.core.exchange.outcomes import Misconfigured, Outcome, Rejected, RetryLater
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.signing import thumbprint
from brokerd.core.exchange.steps import Answer, Brought, Exchange, Response, Step, asked
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError, expected
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import request_fields
from brokerd.dialects.oauth2.login import AuthorizationServer, finished
from brokerd.dialects.oauth2.outcomes import LOGIN_ERRORS, refusal

REDIRECT_URI = "http://127.0.0.1/callback"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
PUSHING = "pushed_authorization_request_endpoint"
OURS = (  # the parameters that brokerd sets
    *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "request"),
    *("request_uri", "code_challenge", "code_challenge_method", "dpop_jkt", "audience", "resource"),
)


def check(settings: Mapping[str, object]) -> None:
    """Checks redirect_uri and authorization_params. Raises ConfigError."""
    uri = str(settings.get("redirect_uri", REDIRECT_URI))
    try:
        parts = urlsplit(uri)
        fits = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        fits = fits and parts.port != 0 and bool(parts.hostname) and not parts.fragment and not parts.username
    except ValueError:
        fits = False
    if not fits or not uri.isascii() or not uri.isprintable():
        raise expected("an https:// URL, or http:// at a loopback address", uri, key="redirect_uri")
    params = settings.get("authorization_params", {})
    assert isinstance(params, Mapping)
    for name in params:
        if name in OURS:
            raise ConfigError("brokerd sends this parameter itself; remove it", key=f"authorization_params.{name}")


def log_in(server: AuthorizationServer, view: GrantView, requested: Mapping[str, str]) -> Exchange:
    place = yield from server.authorization_endpoint(view)
    if isinstance(place, Misconfigured):
        return place
    metadata = yield from server.metadata()
    uri = str(view.settings.get("redirect_uri", REDIRECT_URI))
    if urlsplit(uri).hostname in LOOPBACK:
        listening = yield from asked("listen", {"redirect_uri": uri})
        uri = _at_port(uri, listening.get("port", Secret("")).reveal())
    state, nonce = view.sign.unique(), view.sign.unique()
    verifier = Secret(view.sign.unique() + view.sign.unique())  # 256 bits (RFC 7636 §7.1)
    params = {
        "response_type": "code",
        "client_id": view.credentials["client_id"].reveal(),
        "redirect_uri": uri,
        **requested,
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        **_extra_params(view, requested, nonce),
    }
    url = yield from _url(server, view, place, metadata, params)
    if not isinstance(url, str):
        return url
    came = yield from asked("browser", {"url": url, "redirect_uri": uri, "state": state})
    if refused := _refused(came, state, server.issuer, metadata):
        return refused
    fields = request_fields.fields(view, "exchange") | {
        "grant_type": "authorization_code",
        "code": came["code"].reveal(),
        "redirect_uri": uri,
        "code_verifier": verifier.reveal(),
    }
    reply = yield from server.post("token_endpoint", view, fields, secrets=(came["code"], verifier), sends_stored=True)
    return finished(server, view, reply, "browser login", nonce if "nonce" in params else None)


def _extra_params(view: GrantView, requested: Mapping[str, str], nonce: str) -> dict[str, str]:
    """Parameters that the requested scope, the proof key and the configuration add: OpenID Connect Core 1.0 §3.1.2.1
    and §11, RFC 9449 §10."""
    scope = requested.get("scope", "").split()
    more = {"nonce": nonce} if "openid" in scope else {}
    if "offline_access" in scope:
        more["prompt"] = "consent"
    if view.proof_key is not None:
        more["dpop_jkt"] = thumbprint(view.proof_key)
    configured = view.settings.get("authorization_params", {})
    assert isinstance(configured, Mapping)
    return more | {str(name): str(value) for name, value in configured.items()}


def _url(
    server: AuthorizationServer, view: GrantView, place: str, metadata: Metadata | None, params: dict[str, str]
) -> Generator[Step, Answer, str | Outcome]:
    """The URL that the browser opens. The request is pushed first (RFC 9126) only if the server or the configuration
    wants that: a pushed request expires after about a minute, and a person may take longer."""
    if view.settings.get("pushed_request") or (metadata is not None and metadata.wants_pushed):
        reply = yield from server.post(PUSHING, view, params)
        if isinstance(reply, Misconfigured):
            return reply
        response = reply.response
        assert isinstance(response, Response)
        if later := answer_outcomes.later(response, "pushed authorization request", reply.request):
            return later
        found = answer_values.token((answer_body.json_object(response) or {}).get("request_uri"))
        if not 200 <= response.status < 300 or found is None:
            return refusal(response, "pushed authorization request", LOGIN_ERRORS, reply.request)
        params = {"client_id": params["client_id"], "request_uri": found}
    return f"{place}{'&' if '?' in place else '?'}{urlencode(params)}"


def _refused(came: Brought, state: str, issuer: str | None, metadata: Metadata | None) -> Outcome | None:
    """Why the answer cannot be used: it belongs to another login (RFC 6749 §10.12) or to another server (RFC 9207
    §2.4), or is an error (RFC 6749 §4.1.2.1)."""
    said = {name: value.reveal() for name, value in came.items()}
    if not compare_digest(said.get("state", "").encode(), state.encode()):
        return Rejected("browser login: the answer belongs to another login (state); nothing has changed; log in again")
    names_issuer = metadata is not None and metadata.names_issuer
    if (names_issuer or "iss" in said) and issuer is not None and said.get("iss") != issuer:
        words = "browser login: the answer is not from this server (iss, RFC 9207); nothing has changed; log in again"
        return Rejected(words)
    if error := said.get("error"):
        words = f"browser login: {reason(': '.join(filter(None, (error, said.get('error_description')))))}"
        kind = LOGIN_ERRORS.get(error, Misconfigured)
        if kind is RetryLater:
            return Rejected(f"{words}; log in again")
        return Rejected(words) if kind is Rejected else Misconfigured(words)
    if not said.get("code"):
        return Rejected("browser login: the answer has no code; nothing has changed; log in again")
    return None


def _at_port(uri: str, port: str) -> str:
    """The URI with the port on which brokerctl listens; a URI that names a port stays as it is."""
    parts = urlsplit(uri)
    if parts.port is not None or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.netloc}:{int(port)}"))


def _challenge(verifier: Secret) -> str:
    """RFC 7636 §4.2."""
    digest = hashlib.sha256(verifier.reveal().encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
