# Elasticsearch's token service, from "Get a token" and "Invalidate a token" of its API reference
# (www.elastic.co/docs/api/doc/elasticsearch).
from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import ClassVar

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import PASSWORD, USER
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo, whole
from tests.servers.tokens import Death

BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
USED = "token has already been refreshed"
DEAD = "could not refresh the requested token"


class Elasticsearch(Provider[Settings]):
    """Operations: token, invalidate."""

    name = "elasticsearch"
    prefix = "/es"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/_security/oauth2/token": {"POST": "token", "DELETE": "invalidate"}
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"token": self._token, "invalidate": self._invalidate}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, f"[token] {error.field}: {error.reason}", "parsing_exception")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        words = refusal.reason + echo(request)
        if refusal.code == "invalid_grant":
            return json_response(refusal.status, {"error": refusal.code, "error_description": words})
        error = {"type": refusal.code or "exception", "reason": words, "root_cause": []}
        return json_response(refusal.status, {"error": error, "status": refusal.status}, refusal.headers)

    def _token(self, request: Request) -> Response:
        self._authenticate(request)
        given = body.json_object(request)
        if given.get("grant_type") == "refresh_token":
            token = self.check_refresh(body.require(given, ("grant_type", "refresh_token"))["refresh_token"])
            if isinstance(token, Death):
                raise Refusal(400, USED if token is Death.USED else DEAD, "invalid_grant")
            self.replace_refresh(token)
            self.counts.renewed += 1
            return self._pair(token.family)
        login = body.require(given, ("grant_type", "username", "password"))
        if login != {"grant_type": "password", "username": USER, "password": PASSWORD}:
            raise Refusal(401, f"unable to authenticate user [{login['username']}]", "security_exception")
        self.counts.issued += 1
        return self._pair(self.ledger.family())

    def _invalidate(self, request: Request) -> Response:
        self._authenticate(request)
        given = body.require(body.json_object(request), (), ("token", "refresh_token"))
        if len(given) != 1:
            raise Refusal(400, "one of token and refresh_token is required", "action_request_validation_exception")
        ((name, value),) = given.items()
        token = self.ledger.find(value, "access" if name == "token" else "refresh")
        living = token is not None and not token.revoked
        if token is not None:
            token.revoked = True
        self.counts.revoked += living
        return json_response(200, {"invalidated_tokens": int(living), "error_count": 0})

    def _authenticate(self, request: Request) -> None:
        if request.header("authorization") != BASIC:
            self.wrong_credentials()
            raise Refusal(401, "unable to authenticate user for REST request", "security_exception")

    def _pair(self, family: int) -> Response:
        lifetime = whole(self.settings.access_lifetime)
        access = self.issue_access(family, USER, expires_at=self.settings.now() + lifetime)
        refresh = self.issue_refresh(family, USER, expires_at=self.settings.now() + 86_400)
        pair = {"access_token": access.value, "refresh_token": refresh.value}
        return json_response(200, {**pair, "type": "Bearer", "expires_in": lifetime})
