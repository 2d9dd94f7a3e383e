# IX-API v2: JWT pairs from key and secret, a new pair at each refresh, no revocation.
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import jwt

from tests.servers import body, provider
from tests.servers.credentials import IX_API_KEY, IX_API_SECRET
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo, whole
from tests.servers.tokens import Death, Kind, Token

SIGNING_KEY = "test-only-signing-key-with-more-than-32-bytes"
TYPES = "https://errors.ix-api.example/v2/"  # the vendor's stand at errors.ix-api.net
TITLES = {
    400: ("validation-error", "Some fields have validation errors."),
    401: ("authentication-error", "Authentication credentials are invalid."),
}


@dataclass(kw_only=True)
class Settings(provider.Settings):
    keys: dict[str, str] = field(default_factory=lambda: {IX_API_KEY: IX_API_SECRET})  # api_key → api_secret
    success_status: int = 201  # some deployments 200
    whole_seconds: bool = True  # iat is cut to the second, and exp is iat + the lifetime rounded up, as JWT libraries
    # do: a token lives up to a second less than exp − iat says. False: both are fractions, and exact


class IxApi(Provider[Settings]):
    """Operations: issue, refresh, me."""

    name = "ix-api"
    prefix = "/ix/api/v2"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/auth/token": {"POST": "issue"},
        "/auth/refresh": {"POST": "refresh"},
        "/me": {"GET": "me"},
    }

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue, "refresh": self._refresh}

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        """RFC 9457's problem details, with the five members that the document names."""
        kind, title = TITLES.get(refusal.status, ("error", refusal.reason))
        problem = {
            "type": f"{TYPES}{kind}.html",
            "title": title,
            "status": refusal.status,
            "detail": refusal.reason + echo(request),
            "instance": request.path if request else "",
        }
        return json_response(refusal.status, problem, refusal.headers, of="application/problem+json")

    def issue_refresh(
        self,
        family: int,
        who: str,
        client: str = "",
        scopes: tuple[str, ...] = (),
        expires_at: float | None = None,
        audience: tuple[str, ...] = (),
    ) -> Token:
        lifetime = (expires_at or math.inf) - self.settings.now()
        return self._jwt("refresh", family, who, lifetime)

    def _issue(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("api_key", "api_secret"))
        if self.settings.keys.get(given["api_key"]) != given["api_secret"]:
            self.wrong_credentials()
            raise Refusal(401, "The api_key or the api_secret is wrong.")
        self.counts.issued += 1
        return self._pair(self.ledger.family(), given["api_key"])

    def _refresh(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("refresh_token",))
        token = self.check_refresh(given["refresh_token"])
        if isinstance(token, Death):
            raise Refusal(401, f"The refresh token is {token.value}.")
        self.replace_refresh(token)
        self.counts.renewed += 1
        return self._pair(token.family, token.who)

    def _pair(self, family: int, who: str) -> Response:
        access = self._jwt("access", family, who, self.settings.access_lifetime)
        refresh = self._jwt("refresh", family, who, self.settings.refresh_lifetime)
        pair = {"access_token": access.value, "refresh_token": refresh.value}
        return json_response(self.settings.success_status, pair)

    def _jwt(self, kind: Kind, family: int, who: str, lifetime: float) -> Token:
        issued: float = self.settings.now()
        if self.settings.whole_seconds:
            issued, lifetime = math.floor(issued), whole(lifetime)
        token_id = f"tok-{kind}-{len(self.ledger.tokens) + 1}"
        claims = {
            "iss": self.base_url or "test-only-ix-api",
            "sub": who,
            "token_type": kind,
            "jti": token_id,
            "iat": issued,
            "exp": issued + lifetime,
        }
        return self.ledger.add(
            kind,
            family=family,
            who=who,
            expires_at=issued + lifetime,
            value=jwt.encode(claims, SIGNING_KEY, algorithm="HS256"),
            token_id=token_id,
        )
