# click2mail: long-lived tokens from credentials or by rotation, short-lived ones from a long one,
# each revoked by its id. In the ledger a long token is a refresh token and a short one an access token.
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar
from urllib.parse import unquote

import jwt
from jwt.types import Options

from tests.servers import body, provider
from tests.servers.body import Malformed
from tests.servers.credentials import CLICK2MAIL_CLIENT, CLICK2MAIL_OTPS, CLICK2MAIL_SECRET
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, echo, whole
from tests.servers.tokens import Kind, Token

MIN_TTL, MAX_TTL = 3_600, 7_776_000  # seconds: an hour, 90 days
TOKENS_WRITE = "tokens:write"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
REVOKE = re.compile(r"/auth/tokens/([^/]+)/revoke")
MECHANISMS = ("client_secret", "otp_code", "assertion")
OPTIONS: Options = {  # the times are compared with the provider's own clock
    "require": ["iss", "sub", "exp"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}


@dataclass(kw_only=True)
class Settings(provider.Settings):
    """`access_lifetime` is a short token's, `refresh_lifetime` the longest that a long token gets (ttl_seconds is
    clamped to it); both are rounded up to whole seconds. `rotation`: a new long token, fetched with a short one, kills
    the long token that the short one came from."""

    access_lifetime: float = 900.0
    rotation: bool = False
    clients: dict[str, str] = field(default_factory=lambda: {CLICK2MAIL_CLIENT: CLICK2MAIL_SECRET})
    otp_codes: set[str] = field(default_factory=lambda: set(CLICK2MAIL_OTPS))  # each is gone once used
    scopes: tuple[str, ...] = ("jobs:submit", "jobs:read", TOKENS_WRITE)
    token_id_in_body: bool = True  # False: only in X-Token-Id
    id_prefix: str = "tok_"  # with a slash or a space in it, ids need encoding in the path
    offset_minutes: int | None = -300  # of expires_at; None: "Z"
    clamp_ttl: bool = False  # ttl_seconds outside an hour to 90 days: False 400, True the nearest allowed


class Click2Mail(Provider[Settings]):
    """Operations: issue_long, rotate_long, issue_short, revoke, me."""

    name = "click2mail"
    prefix = "/click2mail/v1"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "/auth/tokens/long": {"POST": "issue_long"},
        "/auth/tokens/short": {"POST": "issue_short"},
        "/me": {"GET": "me"},
    }

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "issue_long": self._long,
            "rotate_long": self._long,
            "issue_short": self._short,
            "revoke": self._revoke,
        }

    def methods(self, path: str) -> Mapping[str, str] | None:
        return {"POST": "revoke"} if REVOKE.fullmatch(path) else super().methods(path)

    def operation_of(self, request: Request) -> str:
        operation = super().operation_of(request)
        rotates = operation == "issue_long" and request.header("authorization") is not None
        return "rotate_long" if rotates else operation

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        """The vendor's published AuthError: `{"code", "message"}`."""
        error = {"code": refusal.code, "message": refusal.reason + echo(request)}
        return json_response(refusal.status, error, refusal.headers)

    def _long(self, request: Request) -> Response:
        client_key = request.header("x-client-id")
        if not client_key:
            raise Malformed("Header required", kind="missing", field="X-Client-Id", where="header")
        fields = body.json_object(request)
        wanted, ttl = self._wanted(fields), self._ttl(fields)
        texts = {name: value for name, value in fields.items() if name not in ("scopes", "ttl_seconds")}
        given = body.require(texts, ("grant_type", "client_id"), (*MECHANISMS, "assertion_type"))
        client = given["client_id"]
        bearer = body.bearer(request)
        used = [name for name in MECHANISMS if name in given]
        if len(used) + (request.header("authorization") is not None) != 1:
            raise _bad("exactly one of client_secret, otp_code, assertion and a bearer token is expected")
        expected = "assertion" if used == ["assertion"] else "client_credentials"
        if given["grant_type"] != expected:
            raise Refusal(400, f"expected the grant type {expected}", "unsupported_grant_type")
        if client_key != client or client not in self.settings.clients:
            self.wrong_credentials()
            raise Refusal(401, "The client is unknown", "invalid_client")
        old = None if used else self._writer(bearer, client)
        if old is None and not self._proven(used[0], given):
            self.wrong_credentials()
            raise Refusal(401, "The provided client credentials are invalid", "invalid_client")
        allowed = self.settings.scopes if old is None else old.scopes
        scopes = self._subset(wanted, allowed)
        family = self.ledger.family() if old is None else old.family
        if old is not None and self.settings.rotation:
            for token in self.ledger.of_kind("refresh"):
                if token.family == family and token.alive(self.settings.now()):
                    token.used_at = self.settings.now()
                    token.revoked = True
        self.counts.issued += 1
        return self._answer_with("refresh", family, client, scopes, ttl)

    def _short(self, request: Request) -> Response:
        long = self._living(body.bearer(request), "refresh")
        fields = body.json_object(request) if request.body else {}
        wanted = self._wanted(fields)
        body.require({name: value for name, value in fields.items() if name != "scopes"}, ())
        scopes = self._subset(wanted, long.scopes)
        self.counts.renewed += 1
        return self._answer_with("access", long.family, long.client, scopes, whole(self.settings.access_lifetime))

    def _revoke(self, request: Request) -> Response:
        bearer = self._living(body.bearer(request), None)
        found = REVOKE.fullmatch(request.path)
        token = self.ledger.find_id(unquote(found[1])) if found else None
        if token is None or token.client != bearer.client:
            raise Refusal(404, "The requested resource was not found", "not_found")
        self.counts.revoked += not token.revoked
        token.revoked = True
        return Response(204)

    def _writer(self, value: str | None, client: str) -> Token:
        """The bearer of a rotation: a living short token of this client with tokens:write."""
        token = self._living(value, None)
        if token.client != client:
            raise Refusal(401, "The token is another client's", "invalid_token")
        if token.kind != "access" or TOKENS_WRITE not in token.scopes:
            raise Refusal(403, "The token lacks the required scope for this operation", "insufficient_scope")
        return token

    def _living(self, value: str | None, kind: Kind | None) -> Token:
        token = self.ledger.find(value)
        if token is None or kind not in (None, token.kind) or not token.alive(self.settings.now()):
            if token is not None and token.kind == "refresh":
                self.counts.reused += token.rejected or token.used_at is not None
                token.rejected = True
            raise Refusal(401, "The provided token is expired or invalid", "invalid_token")
        return token

    def _proven(self, mechanism: str, given: Mapping[str, str]) -> bool:
        secret = self.settings.clients[given["client_id"]]
        if mechanism == "client_secret":
            return given["client_secret"] == secret
        if mechanism == "otp_code":
            known = given["otp_code"] in self.settings.otp_codes
            self.settings.otp_codes.discard(given["otp_code"])
            return known
        if given.get("assertion_type") != ASSERTION:
            raise _bad(f"assertion_type: expected {ASSERTION}")
        try:
            claims = jwt.decode(given["assertion"], secret, algorithms=["HS256"], options=OPTIONS)
        except jwt.InvalidTokenError:
            return False
        in_time: bool = self.settings.now() < claims["exp"]
        return in_time and claims["iss"] == given["client_id"] == claims["sub"]

    def _wanted(self, fields: Mapping[str, object]) -> tuple[str, ...] | None:
        if "scopes" not in fields:
            return None
        scopes = fields["scopes"]
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise Malformed("expected a list of strings", field="scopes")
        return tuple(scopes)

    def _subset(self, wanted: tuple[str, ...] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
        if wanted is None:
            return allowed
        if not set(wanted) <= set(allowed):
            raise Refusal(400, f"expected scopes among {' '.join(allowed)}", "invalid_scope")
        return wanted

    def _ttl(self, fields: Mapping[str, object]) -> int:
        longest = whole(self.settings.refresh_lifetime)
        if "ttl_seconds" not in fields:
            return longest
        ttl = fields["ttl_seconds"]
        if not isinstance(ttl, int) or isinstance(ttl, bool):
            raise Malformed("expected an integer", field="ttl_seconds")
        clamped = min(max(ttl, MIN_TTL), MAX_TTL)
        if clamped != ttl and not self.settings.clamp_ttl:
            raise Malformed(f"expected {MIN_TTL} to {MAX_TTL}", field="ttl_seconds")
        return min(clamped, longest)

    def _answer_with(self, kind: Kind, family: int, client: str, scopes: tuple[str, ...], seconds: int) -> Response:
        expires_at = whole(self.settings.now() + seconds)
        token = self.ledger.add(
            kind,
            family=family,
            who=client,
            client=client,
            scopes=scopes,
            expires_at=expires_at,
            token_id=f"{self.settings.id_prefix}{kind}_{len(self.ledger.tokens) + 1}",
        )
        content = {
            "token_type": "Bearer",
            "access_token": token.value,
            "expires_in": seconds,
            "expires_at": self._timestamp(expires_at),
            "scopes": list(scopes),
        }
        if self.settings.token_id_in_body:
            content["token_id"] = token.id
        return json_response(201, content, (("x-token-id", token.id),))

    def _timestamp(self, seconds: int) -> str:
        offset = self.settings.offset_minutes
        if offset is None:
            return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        return datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset))).isoformat()


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason, "invalid_request")
