# The browser's way to log in: an authorization code (RFC 6749 §4.1) with PKCE (RFC 7636, S256), `state`, the issuer in
# the answer (RFC 9207) and a redirect to a loopback port (RFC 8252 §7.3). Who listens there is somebody else's matter.
from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Generator, Mapping
from hmac import compare_digest
from urllib.parse import urlencode, urlsplit, urlunsplit

from brokerd.core.exchange import Answer, Brought, Exchange, Response, Step, asked
from brokerd.core.metadata import Metadata
from brokerd.core.outcome import Misconfigured, Outcome, Rejected, RetryLater
from brokerd.core.reason import reason
from brokerd.core.secret import Secret
from brokerd.core.signing import thumbprint
from brokerd.core.typed import ConfigError, expected
from brokerd.dialects import answer, body
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import added
from brokerd.dialects.oauth2.answers import LOGIN_ERRORS, refusal
from brokerd.dialects.oauth2.login import Server, finished

REDIRECT_URI = "http://127.0.0.1/callback"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
PUSHING = "pushed_authorization_request_endpoint"
OURS = (  # what a login says by itself
    *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "request"),
    *("request_uri", "code_challenge", "code_challenge_method", "dpop_jkt", "audience", "resource"),
)


def check(settings: Mapping[str, object]) -> None:
    """What the configuration says of the browser's way. Raises ConfigError."""
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
            raise ConfigError("brokerd says this by itself", key=f"authorization_params.{name}")


def browser(server: Server, view: GrantView, wanted: Mapping[str, str]) -> Exchange:
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
        **wanted,
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        **_more(view, wanted, nonce),
    }
    url = yield from _url(server, view, place, metadata, params)
    if not isinstance(url, str):
        return url
    came = yield from asked("browser", {"url": url, "redirect_uri": uri, "state": state})
    refused = _refused(came, state, server.issuer, metadata)
    if refused:
        return refused
    fields = added.fields(view, "exchange") | {
        "grant_type": "authorization_code",
        "code": came["code"].reveal(),
        "redirect_uri": uri,
        "code_verifier": verifier.reveal(),
    }
    heard = yield from server.post("token_endpoint", view, fields, secrets=(came["code"], verifier), spends=True)
    return finished(server, view, heard, "browser login", nonce if "nonce" in params else None)


def _more(view: GrantView, wanted: Mapping[str, str], nonce: str) -> dict[str, str]:
    """What depends on what is wanted: OpenID Connect Core 1.0 §3.1.2.1 and §11, RFC 9449 §10."""
    scope = wanted.get("scope", "").split()
    more = {"nonce": nonce} if "openid" in scope else {}
    if "offline_access" in scope:
        more["prompt"] = "consent"
    if view.proof_key is not None:
        more["dpop_jkt"] = thumbprint(view.proof_key)
    configured = view.settings.get("authorization_params", {})
    assert isinstance(configured, Mapping)
    return more | {str(name): str(value) for name, value in configured.items()}


def _url(
    server: Server, view: GrantView, place: str, metadata: Metadata | None, params: dict[str, str]
) -> Generator[Step, Answer, str | Outcome]:
    """What the browser opens. The request is pushed first (RFC 9126) where the server or the configuration wants that,
    not wherever it can be: what the server gives for it is good for a minute or so, and a person may take longer."""
    if view.settings.get("pushed_request") or (metadata is not None and metadata.wants_pushed):
        heard = yield from server.post(PUSHING, view, params)
        if isinstance(heard, Misconfigured):
            return heard
        response = heard.response
        assert isinstance(response, Response)
        if later := answer.later(response, "pushed authorization request", heard.request):
            return later
        found = answer.token((body.json_object(response) or {}).get("request_uri"))
        if not 200 <= response.status < 300 or found is None:
            return refusal(response, "pushed authorization request", LOGIN_ERRORS, heard.request)
        params = {"client_id": params["client_id"], "request_uri": found}
    return f"{place}{'&' if '?' in place else '?'}{urlencode(params)}"


def _refused(came: Brought, state: str, issuer: str | None, metadata: Metadata | None) -> Outcome | None:
    """What keeps the answer from being used: it is another login's (RFC 6749 §10.12), another server's (RFC 9207 §2.4),
    or an error (RFC 6749 §4.1.2.1)."""
    said = {name: value.reveal() for name, value in came.items()}
    if not compare_digest(said.get("state", "").encode(), state.encode()):
        return Rejected("browser login: the answer is not that of this login (state); nothing has changed")
    names_issuer = metadata is not None and metadata.names_issuer
    if (names_issuer or "iss" in said) and issuer is not None and said.get("iss") != issuer:
        return Rejected("browser login: the answer is not this server's (iss, RFC 9207); nothing has changed")
    if error := said.get("error"):
        words = f"browser login: {reason(': '.join(filter(None, (error, said.get('error_description')))))}"
        kind = LOGIN_ERRORS.get(error, Misconfigured)
        if kind is RetryLater:
            return Rejected(f"{words}; try again")
        return Rejected(words) if kind is Rejected else Misconfigured(words)
    return None if said.get("code") else Rejected("browser login: the answer holds no code; nothing has changed")


def _at_port(uri: str, port: str) -> str:
    """The URI at the port where somebody listens; one that names a port itself stays as it is."""
    parts = urlsplit(uri)
    if parts.port is not None or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.netloc}:{int(port)}"))


def _challenge(verifier: Secret) -> str:
    """RFC 7636 §4.2."""
    digest = hashlib.sha256(verifier.reveal().encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
