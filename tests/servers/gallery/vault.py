# Vault and OpenBao: AppRole's login, and a token that renews and revokes itself, from the API documents "AppRole auth
# method" and "Token auth method" (developer.hashicorp.com/vault/api-docs/auth, openbao.org/api-docs/auth).
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import ROLE_ID, SECRET_ID
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo
from tests.servers.tokens import Token

INVALID = "invalid role or secret ID"
DENIED = "permission denied"


@dataclass(kw_only=True)
class Settings(provider.Settings):
    """`access_lifetime` is the role's token_ttl."""

    token_max_ttl: float = 32 * 86_400.0  # seconds
    renewable: bool = True


class Vault(Provider[Settings]):
    """Operations: login, renew, revoke. AppRole is mounted twice."""

    name = "vault-approle"
    prefix = "/vault"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/v1/auth/approle/login": {"POST": "login"},
        "/v1/auth/machines/login": {"POST": "login"},
        "/v1/auth/token/renew-self": {"POST": "renew"},
        "/v1/auth/token/revoke-self": {"POST": "revoke"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"login": self._login, "renew": self._renew, "revoke": self._revoke}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, "failed to parse JSON input" if not error.field else f"missing {error.field}")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        return json_response(refusal.status, {"errors": [refusal.reason + echo(request)]}, refusal.headers)

    def periodic(self) -> str:
        """A token that an operator made for import: it renews for ever."""
        return self._made("operator").value

    def _login(self, request: Request) -> Response:
        given = body.require(body.json_object(request), ("role_id",), ("secret_id",))
        if (given["role_id"], given.get("secret_id")) != (ROLE_ID, SECRET_ID):
            self.wrong_credentials()
            raise Refusal(400, INVALID)
        self.counts.issued += 1
        return self._extended(self._made(ROLE_ID))

    def _renew(self, request: Request) -> Response:
        token = self._token(request)
        if not self.settings.renewable:
            raise Refusal(400, "lease is not renewable")
        self.counts.renewed += 1
        return self._extended(token)

    def _revoke(self, request: Request) -> Response:
        self._token(request).revoked = True
        self.counts.revoked += 1
        return Response(204)

    def _token(self, request: Request) -> Token:
        token = self.ledger.find(request.header("x-vault-token"))
        if token is None or not token.alive(self.settings.now()):
            raise Refusal(403, DENIED)
        return token

    def _made(self, who: str) -> Token:
        expires_at = self.settings.now() + self.settings.access_lifetime
        return self.issue_access(self.ledger.family(), who, expires_at=expires_at)

    def _extended(self, token: Token) -> Response:
        now, lease = self.settings.now(), self.settings.access_lifetime
        if token.who != "operator":
            lease = min(lease, token.issued_at + self.settings.token_max_ttl - now)
        token.expires_at = now + lease
        auth = {"client_token": token.value, "accessor": token.id, "lease_duration": int(lease)}
        envelope = {"request_id": "1", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None}
        return json_response(200, {**envelope, "auth": {**auth, "renewable": self.settings.renewable}})
