# An OAuth 2.0 token endpoint (RFC 6749) with revocation (RFC 7009): client_credentials, password, refresh_token.
# Further grants are further entries of _grants(); what real servers do beyond the RFC are settings.
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.credentials import (
    OAUTH2_CLIENT,
    OAUTH2_ODD_CLIENT,
    OAUTH2_ODD_SECRET,
    OAUTH2_PASSWORD,
    OAUTH2_POST_CLIENT,
    OAUTH2_POST_SECRET,
    OAUTH2_PUBLIC_CLIENT,
    OAUTH2_SECRET,
    OAUTH2_USER,
)
from tests.servers.http import Headers, Request, Response, json_response
from tests.servers.provider import ExpiresIn, Handler, Provider, Refusal, echo, expiry, whole
from tests.servers.tokens import Death, Token

Method = Literal["client_secret_basic", "client_secret_post", "none"]
GRANTS = ("client_credentials", "password", "refresh_token")
NO_STORE = (("cache-control", "no-store"), ("pragma", "no-cache"))  # RFC 6749 §5.1
REPEATABLE = {"resource", "audience"}  # RFC 8707 §2, RFC 8693 §2.1; nothing else may come twice (RFC 6749 §3.2)
SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*")  # RFC 6749 §3.3


@dataclass(frozen=True)
class Client:
    """A registered client. `secret` None and `methods` {"none"}: a public one."""

    id: str
    secret: str | None = None
    methods: frozenset[Method] = frozenset({"client_secret_basic", "client_secret_post"})
    grants: frozenset[str] = frozenset(GRANTS)
    scopes: tuple[str, ...] = ("read", "write", "admin")


CLIENTS = (
    Client(OAUTH2_CLIENT, OAUTH2_SECRET),
    Client(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET, frozenset({"client_secret_basic"})),
    Client(OAUTH2_POST_CLIENT, OAUTH2_POST_SECRET, frozenset({"client_secret_post"})),
    Client(OAUTH2_PUBLIC_CLIENT, None, frozenset({"none"}), frozenset({"password", "refresh_token"})),
)


@dataclass(kw_only=True)
class Settings(provider.Settings):
    """`access_lifetime` is rounded up to whole seconds, as `expires_in` is an integer."""

    clients: dict[str, Client] = field(default_factory=lambda: {client.id: client for client in CLIENTS})
    users: dict[str, str] = field(default_factory=lambda: {OAUTH2_USER: OAUTH2_PASSWORD})
    expires_in: ExpiresIn = "number"
    token_type: str = "Bearer"  # clients have to take any case (RFC 6749 §5.1)
    basic_encoded: bool = True  # else the secret in Basic is taken as it is, as servers do that decode nothing
    scopes_dropped: frozenset[str] = frozenset()  # silently not granted
    wrong_password: str = "invalid_grant"  # the error code of one
    scope_in_answer: bool = True
    further: tuple[str, ...] = ()  # members of an answer besides; see OAuth2.further
    further_at_refresh: bool = True  # else a refresh answer leaves them out, as servers do with the id_token
    omit_refresh_token: bool = False  # refresh answers leave the refresh token out: the old one stays good
    refresh_for_client_credentials: bool = False  # against RFC 6749 §4.4.3, as some servers do
    refresh_expires_in: bool = False  # answers tell the refresh token's lifetime, as Keycloak's do
    errors_as_200: bool = False  # 200 with an `error` in the body
    error_uri: str | None = None
    revocable: frozenset[str] = frozenset({"access_token", "refresh_token"})  # else unsupported_token_type
    revocation_cascades: bool = True  # a refresh token takes its family's access tokens along (RFC 7009 §2.1)


Grant = Callable[["Client", Mapping[str, str], tuple[str, ...]], Response]


class OAuth2(Provider[Settings]):
    """Operations: issue (client_credentials, password), refresh, revoke, me. Endpoints: /token, /revoke."""

    name = "oauth2"
    prefix = "/oauth2"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/token": {"POST": "issue"},
        "/revoke": {"POST": "revoke"},
        "/me": {"GET": "me"},
    }

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())

    @property
    def token_url(self) -> str:
        return self.base_url + "/token"

    @property
    def revocation_url(self) -> str:
        return self.base_url + "/revoke"

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._token, "refresh": self._token, "revoke": self._revoke}

    def operation_of(self, request: Request) -> str:
        operation = super().operation_of(request)
        if operation != "issue":
            return operation
        try:
            pairs = body.form_pairs(request)
        except Malformed:
            return operation
        return "refresh" if ("grant_type", "refresh_token") in pairs else "issue"

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        """RFC 6749 §5.2."""
        error = {"error": refusal.code, "error_description": refusal.reason + echo(request)}
        if self.settings.error_uri is not None:
            error["error_uri"] = self.settings.error_uri
        status = 200 if self.settings.errors_as_200 else refusal.status
        return json_response(status, error, (*NO_STORE, *refusal.headers))

    def _token(self, request: Request) -> Response:
        given, targets = _parameters(request)
        client = self._authenticate(request, given)
        grant_type = given.get("grant_type")
        if grant_type is None:
            raise Malformed("Field required", kind="missing", field="grant_type")
        grant = self._grants().get(grant_type)
        if grant is None:
            raise Refusal(400, f"the grant type {grant_type} is not supported", "unsupported_grant_type")
        if grant_type not in client.grants:
            raise Refusal(400, f"the client may not use {grant_type}", "unauthorized_client")
        return grant(client, given, targets)

    def _grants(self) -> Mapping[str, Grant]:
        return {
            "client_credentials": self._client_credentials,
            "password": self._password,
            "refresh_token": self._refresh_token,
        }

    def _client_credentials(self, client: Client, given: Mapping[str, str], targets: tuple[str, ...]) -> Response:
        if client.secret is None:  # RFC 6749 §4.4: confidential clients only
            raise Refusal(400, "a public client cannot use client_credentials", "unauthorized_client")
        scopes = _subset(given, client.scopes) or client.scopes
        self.counts.issued += 1
        family = self.ledger.family()
        refresh = None
        if self.settings.refresh_for_client_credentials:
            refresh = self._new_refresh(family, client.id, client, scopes, targets)
        return self._tokens(family, client.id, client, scopes, targets, refresh)

    def _password(self, client: Client, given: Mapping[str, str], targets: tuple[str, ...]) -> Response:
        for name in ("username", "password"):
            if name not in given:
                raise Malformed("Field required", kind="missing", field=name)
        scopes = _subset(given, client.scopes) or client.scopes
        who = given["username"]
        if self.settings.users.get(who) != given["password"]:
            self.wrong_credentials()
            raise Refusal(400, "the user name or the password is wrong", self.settings.wrong_password)
        self.counts.issued += 1
        family = self.ledger.family()
        refresh = self._new_refresh(family, who, client, scopes, targets)
        return self._tokens(family, who, client, scopes, targets, refresh)

    def _refresh_token(self, client: Client, given: Mapping[str, str], targets: tuple[str, ...]) -> Response:
        value = given.get("refresh_token")
        if value is None:
            raise Malformed("Field required", kind="missing", field="refresh_token")
        known = self.ledger.find(value, "refresh")
        if known is not None and known.client != client.id:
            raise Refusal(400, "the refresh token is another client's", "invalid_grant")
        scopes = _subset(given, known.scopes if known else client.scopes)
        token = self.check_refresh(value)
        if isinstance(token, Death):
            raise Refusal(400, f"the refresh token is {token.value}", "invalid_grant")
        self.counts.renewed += 1
        refresh = token
        if self.settings.rotation and not self.settings.omit_refresh_token:
            self.replace_refresh(token)
            refresh = self._new_refresh(token.family, token.who, client, token.scopes, token.audience)
        granted = scopes or token.scopes
        answered = None if self.settings.omit_refresh_token else refresh
        return self._tokens(token.family, token.who, client, granted, targets or token.audience, answered, renewed=True)

    @staticmethod
    def further(name: str, token: Token) -> str:
        """The value of a member that came with that access token, and with no other."""
        return f"test-only-{name}-of-{token.id}"

    def secret_values(self) -> set[str]:
        access = self.ledger.of_kind("access")
        return super().secret_values() | {self.further(name, each) for name in self.settings.further for each in access}

    def _revoke(self, request: Request) -> Response:
        """RFC 7009 §2: 200 whether the token was known or not."""
        given, _ = _parameters(request)
        client = self._authenticate(request, given)
        if "token" not in given:
            raise Malformed("Field required", kind="missing", field="token")
        token = self.ledger.find(given["token"])
        if token is None:
            return Response(200, NO_STORE)
        if f"{token.kind}_token" not in self.settings.revocable:
            raise Refusal(400, f"{token.kind} tokens cannot be revoked", "unsupported_token_type")
        if token.client != client.id:
            raise Refusal(400, "the token is another client's", "invalid_grant")
        self.counts.revoked += not token.revoked
        token.revoked = True
        if token.kind == "refresh" and self.settings.revocation_cascades:
            self.ledger.revoke_family(token.family)
        return Response(200, NO_STORE)

    def _authenticate(self, request: Request, given: Mapping[str, str]) -> Client:
        """RFC 6749 §2.3: one method, and one that the client is registered for."""
        header = request.header("authorization")
        if header is not None:
            if "client_secret" in given:
                raise Malformed("expected one way of client authentication, found two")
            presented, method = body.basic(request, encoded_first=self.settings.basic_encoded), "client_secret_basic"
            if presented is not None and given.get("client_id", presented[0]) != presented[0]:
                raise Malformed("two clients are named", field="client_id")
        else:
            presented = (given.get("client_id", ""), given.get("client_secret", ""))
            method = "client_secret_post" if presented[1] else "none"
        name, secret = presented or ("", "")
        client = self.settings.clients.get(name)
        if client is None or method not in client.methods or (client.secret or "") != secret:
            self.wrong_credentials()
            challenge: Headers = (("www-authenticate", 'Basic realm="test-only"'),) if header is not None else ()
            raise Refusal(401, "client authentication failed", "invalid_client", headers=challenge)
        return client

    def _tokens(
        self,
        family: int,
        who: str,
        client: Client,
        scopes: tuple[str, ...],
        targets: tuple[str, ...],
        refresh: Token | None,
        renewed: bool = False,
    ) -> Response:
        settings = self.settings
        scopes = tuple(each for each in scopes if each not in settings.scopes_dropped)
        seconds = whole(settings.access_lifetime)
        access = self.issue_access(family, who, client.id, scopes, settings.now() + seconds, targets)
        answer: dict[str, object] = {
            "access_token": access.value,
            "token_type": settings.token_type,
            **expiry(settings.expires_in, seconds),
        }
        if refresh is not None:
            answer["refresh_token"] = refresh.value
            if settings.refresh_expires_in and refresh.expires_at is not None:
                answer["refresh_expires_in"] = int(refresh.expires_at - settings.now())
        if settings.scope_in_answer:
            answer["scope"] = " ".join(scopes)
        if settings.further_at_refresh or not renewed:
            answer |= {name: self.further(name, access) for name in settings.further}
        return json_response(200, answer, NO_STORE)

    def _new_refresh(
        self, family: int, who: str, client: Client, scopes: tuple[str, ...], targets: tuple[str, ...]
    ) -> Token:
        expires_at = self.settings.now() + whole(self.settings.refresh_lifetime)
        return self.issue_refresh(family, who, client.id, scopes, expires_at, targets)


def _parameters(request: Request) -> tuple[dict[str, str], tuple[str, ...]]:
    """The parameters, empty ones left out and unknown ones ignored (RFC 6749 §3.2), and audiences and resources."""
    if request.query:
        raise Malformed("parameters belong into the body (RFC 6749 §2.3.1)", where="query")
    pairs = [(name, value) for name, value in body.form_pairs(request) if value]
    targets = tuple(value for name, value in pairs if name in REPEATABLE)
    for value in (value for name, value in pairs if name == "resource"):
        parts = urlsplit(value)
        if not parts.scheme or parts.fragment:
            raise Refusal(400, "resource: expected an absolute URI without a fragment", "invalid_target")
    given = {}
    for name, value in pairs:
        if name in given and name not in REPEATABLE:
            raise Malformed("Field repeated", kind="repeated", field=name)
        given[name] = value
    return given, targets


def _subset(given: Mapping[str, str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes asked for, none where none were."""
    if "scope" not in given:
        return ()
    if not SCOPE.fullmatch(given["scope"]) or not set(given["scope"].split(" ")) <= set(allowed):
        raise Refusal(400, "the scope is unknown or wider than allowed", "invalid_scope")
    return tuple(given["scope"].split(" "))
