# treezor: an OAuth 2.0 token endpoint that takes multipart/form-data and has its own error form.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.credentials import TREEZOR_CLIENT, TREEZOR_PASSWORD, TREEZOR_SECRET, TREEZOR_USER
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import ExpiresIn, Handler, Provider, Refusal, echo, expiry, whole
from tests.servers.tokens import Death, Token

CLIENT = ("grant_type", "client_id", "client_secret")
FIELDS = {  # grant_type → the fields that it needs besides
    "client_credentials": (),
    "password": ("username", "password"),
    "refresh_token": ("refresh_token",),
}
DOCS = "https://docs.treezor.example/errors#"
AUTHENTICATION = {"invalid_client", "invalid_grant", "invalid_token", "unauthorized"}  # the codes of that type


@dataclass(kw_only=True)
class Settings(provider.Settings):
    clients: dict[str, str] = field(default_factory=lambda: {TREEZOR_CLIENT: TREEZOR_SECRET})  # id → secret
    users: dict[str, str] = field(default_factory=lambda: {TREEZOR_USER: TREEZOR_PASSWORD})
    scopes: tuple[str, ...] = ("read_only", "read_write", "admin")
    error_status: int = 400  # of every refusal of the token endpoint: the document allows any
    expires_in: ExpiresIn = "number"
    omit_refresh_token: bool = False  # refresh answers leave the refresh token out: the old one stays good


class Treezor(Provider[Settings]):
    """Operations: issue (client_credentials and password), refresh, me."""

    name = "treezor"
    prefix = "/treezor"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/oauth/token": {"POST": "issue"},
        "/me": {"GET": "me"},
    }

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._token, "refresh": self._token}

    def operation_of(self, request: Request) -> str:
        operation = super().operation_of(request)
        if operation != "issue":
            return operation
        try:
            grant_type = body.multipart(request).get("grant_type", "refresh_token")
        except Malformed:
            return operation
        return "refresh" if grant_type == "refresh_token" else "issue"

    def malformed(self, error: Malformed) -> Refusal:
        refusal = super().malformed(error)
        refusal.status = self.settings.error_status
        return refusal

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        kind = "authentication_error" if refusal.code in AUTHENTICATION else "invalid_request_error"
        error = {
            "type": kind,
            "code": refusal.code,
            "message": refusal.reason + echo(request),
            "docUrl": DOCS + refusal.code,
        }
        return json_response(refusal.status, {"errors": [error]}, refusal.headers)

    def _token(self, request: Request) -> Response:
        fields = body.multipart(request)
        grant_type = fields.setdefault("grant_type", "refresh_token")
        if grant_type not in FIELDS:
            raise self._refused("unsupported_grant_type", f"The grant type {grant_type} is not supported")
        given = body.require(fields, (*CLIENT, *FIELDS[grant_type]), ("scope",))
        client = given["client_id"]
        if self.settings.clients.get(client) != given["client_secret"]:
            self.wrong_credentials()
            raise self._refused("invalid_client", "Client authentication failed")
        if grant_type == "refresh_token":
            return self._refresh(client, given["refresh_token"], self._scopes(given))
        scopes = self._scopes(given) or self.settings.scopes
        if grant_type == "client_credentials":
            self.counts.issued += 1
            return json_response(200, self._access(self.ledger.family(), client, client, scopes))
        user = given["username"]
        if self.settings.users.get(user) != given["password"]:
            self.wrong_credentials()
            raise self._refused("invalid_grant", "The user credentials were incorrect")
        self.counts.issued += 1
        family = self.ledger.family()
        refresh = self._refresh_token(family, user, client, scopes)
        answer = {**self._access(family, user, client, scopes), "refresh_token": refresh.value}
        return json_response(200, answer)

    def _refresh(self, client: str, value: str, scopes: tuple[str, ...]) -> Response:
        known = self.ledger.find(value, "refresh")
        if known is not None and known.client != client:
            raise self._refused("invalid_grant", "The refresh token is not this client's")
        if known is not None and not set(scopes) <= set(known.scopes):
            raise self._refused("invalid_scope", "The scope is wider than the granted one")
        token = self.check_refresh(value)
        if isinstance(token, Death):
            raise self._refused("invalid_grant", f"The refresh token is {token.value}")
        self.counts.renewed += 1
        answer = self._access(token.family, token.who, client, scopes or token.scopes)
        if self.settings.omit_refresh_token:
            return json_response(200, answer)
        if self.settings.rotation:
            self.replace_refresh(token)
            token = self._refresh_token(token.family, token.who, client, token.scopes)
        return json_response(200, {**answer, "refresh_token": token.value})

    def _scopes(self, given: Mapping[str, str]) -> tuple[str, ...]:
        scopes = tuple(given.get("scope", "").split())
        if not set(scopes) <= set(self.settings.scopes):
            raise self._refused("invalid_scope", "The requested scope is invalid")
        return scopes

    def _access(self, family: int, who: str, client: str, scopes: tuple[str, ...]) -> dict[str, object]:
        seconds = whole(self.settings.access_lifetime)
        access = self.issue_access(family, who, client, scopes, self.settings.now() + seconds)
        return {
            "token_type": "Bearer",
            **expiry(self.settings.expires_in, seconds),
            "access_token": access.value,
        }

    def _refresh_token(self, family: int, who: str, client: str, scopes: tuple[str, ...]) -> Token:
        return self.issue_refresh(family, who, client, scopes, self.settings.now() + self.settings.refresh_lifetime)

    def _refused(self, code: str, message: str) -> Refusal:
        return Refusal(self.settings.error_status, message, code)
