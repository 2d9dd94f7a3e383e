# OAuth 2.0 (RFC 6749): client_credentials, password and refresh_token at a token endpoint, revocation (RFC 7009).
from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus, urlencode, urlsplit

from brokerd.core.exchange import Exchange, Request, Response, answered
from brokerd.core.outcome import Cause, Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Token, Tokens
from brokerd.core.reason import reason
from brokerd.core.record import Doomed
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.typed import ConfigError, expected
from brokerd.dialects import answer
from brokerd.dialects.dialect import DEFAULT_PRESENT, Dialect, GrantView

GRANT_TYPES = {  # grant type: the credentials that it needs besides the client's
    "client_credentials": (),
    "password": ("username", "password"),
    "refresh_token": (),
}
CLIENT_AUTHS = ("client_secret_basic", "client_secret_post", "none")


@dataclass(frozen=True, slots=True)
class OAuth2(Dialect):
    """An OAuth 2.0 authorization server. A grant's settings are `grant_type`, `client_auth`, `scope`, `audience` and
    `resource`."""

    token_url: str
    revocation_url: str | None = None

    @property
    def present(self) -> str:
        return DEFAULT_PRESENT

    def check(self, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
        grant_type, client_auth = settings.get("grant_type"), settings.get("client_auth")
        if grant_type not in GRANT_TYPES:
            raise expected(f"one of {', '.join(GRANT_TYPES)}", grant_type, key="grant_type")
        if client_auth not in CLIENT_AUTHS:
            raise expected(f"one of {', '.join(CLIENT_AUTHS)}", client_auth, key="client_auth")
        needed = {"client_id", *GRANT_TYPES[str(grant_type)]}
        if client_auth != "none":
            needed.add("client_secret")
        elif grant_type == "client_credentials":
            raise ConfigError("a public client has no client credentials (RFC 6749 §4.4)", key="client_auth")
        for name in sorted(needed - credentials):
            raise ConfigError(f"required for {grant_type} with {client_auth}, and missing", key=f"credentials.{name}")
        for name in sorted(credentials - needed):
            words = f"not used by {grant_type} with {client_auth}; used: {', '.join(sorted(needed))}"
            raise ConfigError(words, key=f"credentials.{name}")

    def identity(self, view: GrantView) -> tuple[str, ...]:
        origins = sorted({_origin(url) for url in (self.token_url, self.revocation_url) if url})
        who = tuple(f"{n}={view.credentials[n].reveal()}" for n in ("client_id", "username") if n in view.credentials)
        return ("oauth2", *origins, *who, str(view.settings["grant_type"]))

    def ability(self, view: GrantView) -> Ability:
        return Ability(issue=view.settings["grant_type"] != "refresh_token", renew=True, renew_spends=True)

    def issue(self, view: GrantView) -> Exchange:
        grant_type = str(view.settings["grant_type"])
        fields = {"grant_type": grant_type}
        for name in GRANT_TYPES[grant_type]:
            fields[name] = view.credentials[name].reveal()
        return self._ask(view, {**fields, **_wanted(view)}, ISSUE_ERRORS)

    def renew(self, view: GrantView) -> Exchange:
        assert view.refresh_token is not None
        fields = {"grant_type": "refresh_token", "refresh_token": view.refresh_token.value.reveal()}
        return self._ask(view, fields, RENEW_ERRORS, spends=True)

    def revoke(self, view: GrantView, token: Doomed) -> Exchange | None:
        if self.revocation_url is None:
            return None
        doomed = token.refresh_token or token.access_token
        assert doomed is not None
        hint = "refresh_token" if token.refresh_token else "access_token"
        fields = {"token": doomed.value.reveal(), "token_type_hint": hint}
        return self._revoke(_request(self.revocation_url, view, fields))

    def _ask(self, view: GrantView, fields: dict[str, str], errors: Errors, *, spends: bool = False) -> Exchange:
        request = _request(self.token_url, view, fields, spends=spends)
        response = yield from answered(request)
        return answer.later(response, fields["grant_type"]) or _read(response, fields["grant_type"], errors, request)

    def _revoke(self, request: Request) -> Exchange:
        """RFC 7009 §2.2: 200 also for a token that is dead already."""
        response = yield from answered(request)
        if later := answer.later(response, "revocation"):
            return later
        body = answer.json_object(response)
        heard = not response.body.strip() if body is None else "error" not in body
        if 200 <= response.status < 300 and heard:
            return Done()
        return _error(response, "revocation", REVOKE_ERRORS, request)


def _request(url: str, view: GrantView, fields: dict[str, str], *, spends: bool = False) -> Request:
    """A form with the client's authentication (RFC 6749 §2.3.1)."""
    stored = (token.value for token in (view.access_token, view.refresh_token) if token)
    sent = [*(secret for name, secret in view.credentials.items() if name != "client_id"), *stored]
    headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
    client_id = view.credentials["client_id"].reveal()
    match view.settings["client_auth"]:
        case "client_secret_basic":
            # Both are form-encoded first: an id with a colon in it would otherwise be cut there.
            pair = f"{quote_plus(client_id)}:{quote_plus(view.credentials['client_secret'].reveal())}"
            encoded = base64.b64encode(pair.encode()).decode()
            headers.append(("Authorization", f"Basic {encoded}"))
            sent.append(Secret(encoded))
        case "client_secret_post":
            fields = {**fields, "client_id": client_id, "client_secret": view.credentials["client_secret"].reveal()}
        case _:
            fields = {**fields, "client_id": client_id}
    return Request("POST", url, tuple(headers), urlencode(fields).encode(), tuple(sent), spends)


def _wanted(view: GrantView) -> dict[str, str]:
    """What the token is asked for. A renewal leaves it out: the grant's own scope then stays (RFC 6749 §6)."""
    scope, wanted = view.settings.get("scope"), {}
    if isinstance(scope, list | tuple) and scope:
        wanted["scope"] = " ".join(str(each) for each in scope)
    for name in ("audience", "resource"):
        if value := view.settings.get(name):
            wanted[name] = str(value)
    return wanted


def _read(response: Response, what: str, errors: Errors, request: Request) -> Outcome:
    """RFC 6749 §5.1, and what real servers do beyond it: `expires_in` as text, errors with status 200."""
    body = answer.json_object(response)
    if not 200 <= response.status < 300 or (body and "error" in body and "access_token" not in body):
        return _error(response, what, errors, request)
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


def _error(response: Response, what: str, errors: Errors, request: Request) -> Outcome:
    """RFC 6749 §5.2. An answer without an error code is not the provider's (law 12)."""
    body = answer.json_object(response) or {}
    code, described = body.get("error"), body.get("error_description")
    if not isinstance(code, str) or not code or 300 <= response.status < 400:
        return answer.strange(response, what, request.secrets)
    words = reason(f"{code}: {described}" if isinstance(described, str) else code, request.secrets)
    said = f"{what}: the provider answered {response.status} {words}"
    match errors.get(code, Misconfigured):
        case answer_type if answer_type is RetryLater:
            return RetryLater(said, Cause.FAILED, answer.retry_after(response))
        case answer_type if answer_type is Rejected:
            return Rejected(said)
        case answer_type if answer_type is Done:
            return Done()
        case _:
            return Misconfigured(said)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


# What an error code means (RFC 6749 §5.2 and §4.1.2.1, RFC 7009 §2.2.1); a code that is not here is Misconfigured.
Errors = Mapping[str, type[Outcome]]
ISSUE_ERRORS: Errors = {
    "temporarily_unavailable": RetryLater,
    "server_error": RetryLater,
    "slow_down": RetryLater,
}
RENEW_ERRORS: Errors = {**ISSUE_ERRORS, "invalid_grant": Rejected}
REVOKE_ERRORS: Errors = {**ISSUE_ERRORS, "unsupported_token_type": Done, "invalid_grant": Done}
