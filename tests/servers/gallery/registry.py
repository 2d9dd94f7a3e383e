# A registry's token server, from the Distribution project's "Token Authentication Specification"
# (distribution.github.io/distribution/spec/auth/token); its error bodies are those of GitLab and Docker Hub.
from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tests.servers import body, provider
from tests.servers.gallery.credentials import PASSWORD, USER
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo, whole

SERVICE = "container_registry"
SHORTEST = 60  # seconds; also what is meant where none are named


@dataclass(kw_only=True)
class Settings(provider.Settings):
    field: str = "token"  # or access_token
    states_expiry: bool = True
    details: bool = False  # errors as Docker Hub has them


class Registry(Provider[Settings]):
    """Operations: issue."""

    name = "docker-registry"
    prefix = "/jwt"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {"/auth": {"GET": "issue"}}

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue}

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        words = refusal.reason + echo(request)
        errors = [{"code": refusal.code or "UNKNOWN", "message": words}]
        return json_response(refusal.status, {"details": words} if self.settings.details else {"errors": errors})

    def _issue(self, request: Request) -> Response:
        asked = body.require(body.query(request), ("service",), ("scope", "client_id", "offline_token", "account"))
        if asked["service"] != SERVICE:
            raise Refusal(400, "unknown service", "UNSUPPORTED")
        who = "anonymous"
        if request.header("authorization") is not None:
            who = USER
            if request.header("authorization") != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
                self.wrong_credentials()
                raise Refusal(401, "authentication required", "UNAUTHORIZED")
        lifetime = max(SHORTEST, whole(self.settings.access_lifetime)) if self.settings.states_expiry else SHORTEST
        scopes = tuple(asked.get("scope", "").split())
        token = self.issue_access(self.ledger.family(), who, "", scopes, self.settings.now() + lifetime)
        self.counts.issued += 1
        stated = {"expires_in": lifetime} if self.settings.states_expiry else {}
        return json_response(200, {self.settings.field: token.value, **stated})
