# A Matrix home server, from the Client-Server API v1.11 (spec.matrix.org): "Login", "Refreshing access tokens",
# "Logout", "Standard error response".
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import PASSWORD, USER
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo
from tests.servers.tokens import Death


@dataclass(kw_only=True)
class Settings(provider.Settings):
    knows_refresh: bool = True  # servers before v1.3 give access tokens that do not end


class Matrix(Provider[Settings]):
    """Operations: login, refresh, logout."""

    name = "matrix"
    prefix = "/matrix"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/_matrix/client/v3/login": {"POST": "login"},
        "/_matrix/client/v3/refresh": {"POST": "refresh"},
        "/_matrix/client/v3/logout": {"POST": "logout"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"login": self._login, "refresh": self._refresh, "logout": self._logout}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, error.reason, "M_BAD_JSON" if error.field else "M_NOT_JSON")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        code = refusal.code if refusal.code.startswith("M_") else "M_UNRECOGNIZED"
        return json_response(refusal.status, {"errcode": code, "error": refusal.reason + echo(request)})

    def _login(self, request: Request) -> Response:
        given = body.json_object(request)
        if given.pop("refresh_token", False) is not True or given.pop("type", None) != "m.login.password":
            raise Refusal(400, "Unknown login type", "M_UNKNOWN")
        if given.pop("identifier", None) != {"type": "m.id.user", "user": USER}:
            raise Refusal(403, "Invalid username or password", "M_FORBIDDEN")
        login = body.require(given, ("password",), ("device_id",))
        if login["password"] != PASSWORD:
            self.wrong_credentials()
            raise Refusal(403, "Invalid username or password", "M_FORBIDDEN")
        self.counts.issued += 1
        device = login.get("device_id", "GENERATED")
        return json_response(200, {"user_id": f"@{USER}:example", "device_id": device, **self._pair()})

    def _refresh(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("refresh_token",))
        token = self.check_refresh(given["refresh_token"])
        if isinstance(token, Death):
            raise Refusal(401, "Unknown refresh token", "M_UNKNOWN_TOKEN")
        self.replace_refresh(token)
        self.counts.renewed += 1
        return json_response(200, self._pair(token.family))

    def _logout(self, request: Request) -> Response:
        body.json_object(request)
        token = self.ledger.find(body.bearer(request), "access")
        if token is None or not token.alive(self.settings.now()):
            raise Refusal(401, "Unknown access token", "M_UNKNOWN_TOKEN")
        self.ledger.revoke_family(token.family)
        self.counts.revoked += 1
        return json_response(200, {})

    def _pair(self, family: int | None = None) -> dict[str, object]:
        family = family or self.ledger.family()
        if not self.settings.knows_refresh:
            return {"access_token": self.issue_access(family, USER).value}
        now, lifetime = self.settings.now(), self.settings.access_lifetime
        access = self.issue_access(family, USER, expires_at=now + lifetime)
        refresh = self.issue_refresh(family, USER, expires_at=now + self.settings.refresh_lifetime)
        expiry = {"expires_in_ms": int(lifetime * 1000)}
        return {"access_token": access.value, "refresh_token": refresh.value, **expiry}
