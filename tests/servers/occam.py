# occam: a password login with single-use refresh tokens, or a key in the query string.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.credentials import OCCAM_KEY, OCCAM_PASSWORD, OCCAM_USER
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo, whole
from tests.servers.tokens import Death

WRONG_PASSWORD = "Invalid email or password"
WRONG_KEY = "Invalid key"
USED = "Refresh token expired or is already used"
NOT_FOUND = "Refresh token does not exist"


@dataclass(kw_only=True)
class Settings(provider.Settings):
    """The times in answers are whole Unix seconds, rounded up, and the tokens live until then: never shorter than
    asked for, up to a second longer."""

    users: dict[str, str] = field(default_factory=lambda: {OCCAM_USER: OCCAM_PASSWORD})
    keys: dict[str, str] = field(default_factory=lambda: {OCCAM_KEY: "test-only-key-holder"})  # key → who
    clients: dict[str, str] = field(default_factory=dict)  # id → secret; where empty, both are taken unread


class Occam(Provider[Settings]):
    """Operations: issue (password), issue_key, refresh, me."""

    name = "occam"
    prefix = "/occam"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/auth/access-token": {"POST": "issue", "GET": "issue_key"},
        "/auth/refresh-token": {"POST": "refresh"},
        "/me": {"GET": "me"},
    }

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue, "issue_key": self._issue_key, "refresh": self._refresh}

    def malformed(self, error: Malformed) -> Refusal:
        where = (error.where, error.field) if error.field else (error.where,)
        return Refusal(422, error.reason, error.kind, where=where)

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        """`{"detail": text}`, for 422 `{"detail": [{loc, msg, type}]}` with the whole `input` where echoed."""
        if refusal.status != 422:
            return json_response(refusal.status, {"detail": refusal.reason + echo(request)}, refusal.headers)
        fault: dict[str, object] = {"loc": refusal.where, "msg": refusal.reason, "type": refusal.code}
        if request is not None:
            fault["input"] = echo(request)
        return json_response(422, {"detail": [fault]}, refusal.headers)

    def _issue(self, request: Request) -> Response:
        optional = ("grant_type", "scope", "client_id", "client_secret")
        given = body.require(body.form(request), ("username", "password"), optional)
        if given.get("grant_type", "password") != "password":
            raise Malformed("String should match 'password'", kind="string_pattern_mismatch", field="grant_type")
        clients = self.settings.clients
        client = given.get("client_id", "")
        right_client = not clients or clients.get(client) == given.get("client_secret", "")
        if not right_client or self.settings.users.get(given["username"]) != given["password"]:
            self.wrong_credentials()
            raise Refusal(400, WRONG_PASSWORD)
        self.counts.issued += 1
        scopes = tuple(given.get("scope", "").split())
        return self._tokens(self.ledger.family(), given["username"], client, scopes)

    def _issue_key(self, request: Request) -> Response:
        try:
            given = body.require(body.query(request), ("key",))
        except Malformed as error:
            error.where = "query"
            raise
        who = self.settings.keys.get(given["key"])
        if who is None:
            self.wrong_credentials()
            raise Refusal(400, WRONG_KEY)
        self.counts.issued += 1
        return json_response(200, self._access(self.ledger.family(), who, "", ()))

    def _refresh(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("refresh_token",))
        token = self.check_refresh(given["refresh_token"])
        if token is Death.UNKNOWN:
            raise Refusal(404, NOT_FOUND)
        if isinstance(token, Death):
            raise Refusal(400, USED)
        self.replace_refresh(token)
        self.counts.renewed += 1
        return self._tokens(token.family, token.who, token.client, token.scopes)

    def _tokens(self, family: int, who: str, client: str, scopes: tuple[str, ...]) -> Response:
        access = self._access(family, who, client, scopes)
        expires_at = whole(self.settings.now() + self.settings.refresh_lifetime)
        refresh = self.issue_refresh(family, who, client, scopes, expires_at)
        return json_response(200, {**access, "refresh_token": refresh.value, "refresh_token_expires_at": expires_at})

    def _access(self, family: int, who: str, client: str, scopes: tuple[str, ...]) -> dict[str, object]:
        expires_at = whole(self.settings.now() + self.settings.access_lifetime)
        access = self.issue_access(family, who, client, scopes, expires_at)
        return {"token_type": "Bearer", "access_token": access.value, "expires_at": expires_at}
