# Directus, from its API reference "Authentication" (directus.io/docs/api/authentication: Login, Refresh, Logout) and
# "Error codes" (docs.directus.io/reference/introduction).
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import EMAIL, PASSWORD
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo
from tests.servers.tokens import Death, Token

WRONG = "Invalid user credentials."


class Directus(Provider[Settings]):
    """Operations: login, refresh, logout."""

    name = "directus"
    prefix = "/directus"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/auth/login": {"POST": "login"},
        "/auth/refresh": {"POST": "refresh"},
        "/auth/logout": {"POST": "logout"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"login": self._login, "refresh": self._refresh, "logout": self._logout}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, f'Invalid payload. "{error.field}" is required.', "INVALID_PAYLOAD")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        error = {"message": refusal.reason + echo(request), "extensions": {"code": refusal.code}}
        return json_response(refusal.status, {"errors": [error]}, refusal.headers)

    def _login(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("email", "password"), ("mode", "otp"))
        if (given["email"], given["password"]) != (EMAIL, PASSWORD):
            self.wrong_credentials()
            raise Refusal(401, WRONG, "INVALID_CREDENTIALS")
        self.counts.issued += 1
        return self._pair(self.ledger.family())

    def _refresh(self, request: Request) -> Response:
        token = self._presented(request)
        self.replace_refresh(token)
        self.counts.renewed += 1
        return self._pair(token.family)

    def _logout(self, request: Request) -> Response:
        self.ledger.revoke_family(self._presented(request).family)
        self.counts.revoked += 1
        return Response(204)

    def _presented(self, request: Request) -> Token:
        given = body.require(body.json_object(request), ("refresh_token", "mode"))
        if given["mode"] != "json":
            raise Refusal(400, 'Invalid payload. "refresh_token" is required in the cookie.', "INVALID_PAYLOAD")
        token = self.check_refresh(given["refresh_token"])
        if isinstance(token, Death):
            raise Refusal(401, WRONG, "INVALID_CREDENTIALS")
        return token

    def _pair(self, family: int) -> Response:
        now, lifetime = self.settings.now(), self.settings.access_lifetime
        access = self.issue_access(family, EMAIL, expires_at=now + lifetime)
        refresh = self.issue_refresh(family, EMAIL, expires_at=now + self.settings.refresh_lifetime)
        pair = {"access_token": access.value, "expires": int(lifetime * 1000), "refresh_token": refresh.value}
        return json_response(200, {"data": pair})
