# Salesforce: the JWT bearer and the refresh token flow, and revocation, from Salesforce Help ("OAuth 2.0 JWT Bearer
# Flow for Server-to-Server Integration", "OAuth 2.0 Refresh Token Flow", "Revoke OAuth Tokens"). No answer names a
# lifetime: the session settings of the organisation do.
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jwt

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import app_key
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo
from tests.servers.tokens import Token

CONSUMER, USER, LOGIN = "test-only-consumer-key", "integration@shop.example", "https://login.salesforce.com"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LONGEST = 300  # seconds until an assertion ends
INSTANCE = "https://test-only.my.salesforce.com"


class Salesforce(Provider[Settings]):
    """Operations: issue, revoke. `instance_of`: the instance that a token is for."""

    name = "salesforce"
    prefix = "/salesforce"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/services/oauth2/token": {"POST": "issue"},
        "/services/oauth2/revoke": {"POST": "revoke"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue, "revoke": self._revoke}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, f"{error.field}: {error.reason}", "invalid_request")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        said = {"error": refusal.code, "error_description": refusal.reason + echo(request)}
        return json_response(refusal.status, said, refusal.headers)

    @staticmethod
    def instance_of(token: Token) -> str:
        return f"{INSTANCE}/{token.id}"

    def _issue(self, request: Request) -> Response:
        given = body.form(request)
        if given.get("grant_type") == JWT_BEARER:
            given = body.require(given, ("grant_type", "assertion"))
            return self._answered(self._made(self._asserted(given["assertion"])))
        given = body.require(given, ("grant_type", "refresh_token", "client_id"))
        token = self.ledger.find(given["refresh_token"], "refresh")
        if given["grant_type"] != "refresh_token":
            raise Refusal(400, "grant type not supported", "unsupported_grant_type")
        if token is None or not token.alive(self.settings.now()) or given["client_id"] != CONSUMER:
            raise Refusal(400, "expired access/refresh token", "invalid_grant")
        return self._answered(self._made(token.who))

    def _revoke(self, request: Request) -> Response:
        given = body.require(body.form(request), ("token",), ("token_type_hint",))
        token = self.ledger.find(given["token"])
        if token is None or not token.alive(self.settings.now()):
            raise Refusal(400, "invalid token", "invalid_token")
        token.revoked = True
        self.counts.revoked += 1
        return Response(200)

    def _asserted(self, assertion: str) -> str:
        options = {"require": ["iss", "sub", "aud", "exp"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(
                assertion,
                app_key().public_key(),
                ["RS256"],
                audience=LOGIN,
                options=options,  # type: ignore[arg-type]
            )
        except jwt.PyJWTError:
            self.wrong_credentials()
            raise Refusal(400, "invalid assertion", "invalid_grant") from None
        if not 0 < claims["exp"] - self.settings.now() <= LONGEST:
            raise Refusal(400, "expired authorization code", "invalid_grant")
        if (claims["iss"], claims["sub"]) != (CONSUMER, USER):
            raise Refusal(400, "user hasn't approved this consumer", "invalid_grant")
        return USER

    def _made(self, who: str) -> Token:
        self.counts.issued += 1
        return self.issue_access(self.ledger.family(), who, expires_at=self.settings.now() + 7_200)

    def _answered(self, token: Token) -> Response:
        said = {"access_token": token.value, "token_type": "Bearer", "scope": "api", "id": f"{LOGIN}/id/00D/005"}
        return json_response(200, {**said, "instance_url": self.instance_of(token)})
