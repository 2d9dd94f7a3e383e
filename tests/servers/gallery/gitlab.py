# GitLab's personal access tokens, from "Personal access tokens API" (docs.gitlab.com/api/personal_access_tokens: rotate
# self, revoke self, automatic reuse detection) and "REST API authentication" (docs.gitlab.com/api/rest).
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from tests.servers import provider
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo
from tests.servers.tokens import Death, Token

REVOKED = "Token was revoked. You have to re-authorize from the user."


@dataclass(kw_only=True)
class Settings(provider.Settings):
    days: int = 7  # that a rotated token lives: a week where the request names no date
    may_rotate: bool = True  # its scopes have api or self_rotate


class GitLab(Provider[Settings]):
    """Operations: rotate, revoke. A token is a refresh token of the ledger; its value is used for everything."""

    name = "gitlab"
    prefix = "/api/v4"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/personal_access_tokens/self/rotate": {"POST": "rotate"},
        "/personal_access_tokens/self": {"DELETE": "revoke"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"rotate": self._rotate, "revoke": self._revoke}

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        words = refusal.reason + echo(request)
        if refusal.code:
            return json_response(refusal.status, {"error": refusal.code, "error_description": words})
        return json_response(refusal.status, {"message": words}, refusal.headers)

    def _rotate(self, request: Request) -> Response:
        token = self._presented(request)
        if not self.settings.may_rotate:
            raise Refusal(403, "The request requires higher privileges than provided.", "insufficient_scope")
        self.replace_refresh(token)
        self.counts.renewed += 1
        ends = datetime.fromtimestamp(self.settings.now(), UTC).date() + timedelta(days=self.settings.days)
        expires_at = datetime(ends.year, ends.month, ends.day, tzinfo=UTC).timestamp()
        made = self.issue_refresh(token.family, token.who, expires_at=expires_at)
        about = {"id": 42, "name": "bot", "revoked": False, "scopes": ["api"], "active": True}
        return json_response(200, {**about, "expires_at": ends.isoformat(), "token": made.value})

    def _revoke(self, request: Request) -> Response:
        self._presented(request).revoked = True
        self.counts.revoked += 1
        return Response(204)

    def _presented(self, request: Request) -> Token:
        token = self.check_refresh(request.header("private-token") or "")
        if token is Death.UNKNOWN:
            raise Refusal(401, "401 Unauthorized")
        if isinstance(token, Death):
            raise Refusal(401, REVOKED, "invalid_token")
        return token
