# GitHub's installation access tokens, from "Generating a JSON Web Token (JWT) for a GitHub App" and the REST API's
# "Create an installation access token for an app" and "Revoke an installation access token" (docs.github.com/en/apps,
# docs.github.com/en/rest/apps).
from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

import jwt

from tests.servers import body
from tests.servers.gallery.credentials import CLIENT_ID, app_key
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo, whole

INSTALLATION = "4711"
LONGEST = 600  # seconds
UNDECODABLE = "A JSON web token could not be decoded"
TOO_LONG = "'Expiration time' claim ('exp') is too far in the future"
TOO_NEW = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
BAD_CREDENTIALS = "Bad credentials"


class GitHub(Provider[Settings]):
    """Operations: issue, revoke. Settings: the general ones."""

    name = "github-app"
    prefix = "/api/v3"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        f"/app/installations/{INSTALLATION}/access_tokens": {"POST": "issue"},
        "/installation/token": {"DELETE": "revoke"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue, "revoke": self._revoke}

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        words = {"message": refusal.reason + echo(request), "documentation_url": "https://docs.github.com/rest"}
        return json_response(refusal.status, {**words, "status": str(refusal.status)}, refusal.headers)

    def _issue(self, request: Request) -> Response:
        who = self._app(request)
        given = body.json_object(request)
        if not set(given) <= {"repositories", "permissions"} or not isinstance(given.get("permissions", {}), dict):
            raise Refusal(422, "Validation Failed")
        expires_at = whole(self.settings.now() + self.settings.access_lifetime)
        token = self.issue_access(self.ledger.family(), who, expires_at=expires_at)
        self.counts.issued += 1
        stated = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json_response(201, {"token": token.value, "expires_at": stated, "repository_selection": "all"})

    def _revoke(self, request: Request) -> Response:
        token = self.ledger.find(_bearer(request))
        if token is None or not token.alive(self.settings.now()):
            raise Refusal(401, BAD_CREDENTIALS)
        token.revoked = True
        self.counts.revoked += 1
        return Response(204)

    def _app(self, request: Request) -> str:
        key = app_key().public_key()
        options = {"require": ["iat", "exp", "iss"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(_bearer(request), key, ["RS256"], options=options)  # type: ignore[arg-type]
        except jwt.PyJWTError:
            raise Refusal(401, UNDECODABLE) from None
        now = self.settings.now()
        if not now < claims["exp"] <= now + LONGEST or claims["exp"] - claims["iat"] > LONGEST:
            raise Refusal(401, TOO_LONG)
        if claims["iat"] > now:  # hence the advice to set it a minute back
            raise Refusal(401, TOO_NEW)
        if claims["iss"] != CLIENT_ID:
            self.wrong_credentials()
            raise Refusal(404, "Integration not found")
        return CLIENT_ID


def _bearer(request: Request) -> str:
    if request.header("accept") != "application/vnd.github+json" or not request.header("x-github-api-version"):
        raise Refusal(415, "Must accept 'application/vnd.github+json'")
    return body.bearer(request) or ""
