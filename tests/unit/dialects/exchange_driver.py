# Drives exchanges with lists of answers instead of a network, and reads the requests that they made.
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import jwt
import tomli

from brokerd.config.recipes import BUILT_IN_RECIPES
from brokerd.core.exchange.outcomes import Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Unsupported
from brokerd.core.exchange.signing import Signer
from brokerd.core.exchange.steps import Exchange, Request, Response
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import read_recipe
from brokerd.edge.system.entropy import SystemEntropy
from tests.servers import body as bodies
from tests.servers import http

NOW = Moment(1_800_000_000.25, 5_000.0, "boot-1")
BASE = "https://api.example/base"
JSON, HTML = "application/json", "text/html; charset=utf-8"
PORTAL = b"<!doctype html><title>Welcome</title><p>Please sign in to use this network."
Headers = Mapping[str, str]


def answer(
    status: int,
    body: object = b"",
    headers: Headers | None = None,
    *,
    took: float = 0.1,
    sent_at: Moment = NOW,
) -> Response:
    """An answer `took` seconds after the request left; a body that is no bytes is written as JSON."""
    is_json = not isinstance(body, bytes)
    fields = {"content-type": JSON, **(headers or {})} if is_json else dict(headers or {})
    content = json.dumps(body).encode() if is_json else body
    assert isinstance(content, bytes)
    return Response(status, tuple(fields.items()), content, sent_at, sent_at.after(took))


def html(status: int, body: bytes = PORTAL, headers: Headers | None = None) -> Response:
    return answer(status, body, {"content-type": HTML, **(headers or {})})


def http_date(wall: float) -> str:
    return formatdate(wall, usegmt=True)


def jwt_of(issued: float | None = None, lifetime: float = 3_600.0, **claims: object) -> str:
    start = NOW.wall if issued is None else issued
    key = "test-only-signing-key-with-more-than-32-bytes"
    return jwt.encode({"iat": int(start), "exp": int(start) + lifetime, **claims}, key, algorithm="HS256")


def drive(exchange: Exchange, *answers: Response) -> tuple[list[Request], Outcome]:
    """Run the exchange to its end: what it asked, and its outcome. Every answer has to be wanted."""
    requests: list[Request] = []
    waiting = list(answers)
    step: Any = None
    try:
        step = next(exchange)
        while True:
            assert isinstance(step, Request)
            requests.append(step)
            step = exchange.send(waiting.pop(0))
    except StopIteration as stop:
        assert not waiting, "the exchange ended before it had heard every answer"
        return requests, stop.value


def outcome(exchange: Exchange, *answers: Response) -> Outcome:
    return drive(exchange, *answers)[1]


def meaning(found: Outcome) -> str:
    """An outcome in one word: issued, done, rejected, misconfigured, or the cause of a RetryLater."""
    match found:
        case Issued():
            return "issued"
        case Done():
            return "done"
        case Unsupported():
            return "unsupported"
        case Rejected():
            return "rejected"
        case Misconfigured():
            return "misconfigured"
        case RetryLater(_, cause, _):
            return cause.label


def words(found: Outcome) -> str:
    return "" if isinstance(found, Issued | Done) else found.reason


def recipe(name: str, base_url: str = BASE, settings: Mapping[str, object] | None = None) -> RecipeDialect:
    raw = tomli.loads((BUILT_IN_RECIPES / f"{name}.toml").read_text())
    return RecipeDialect(read_recipe(name, raw), base_url.rstrip("/"), settings or {})


class StoppedClock:
    def now(self) -> Moment:
        return NOW


def view(
    credentials: Mapping[str, str],
    settings: Mapping[str, object] | None = None,
    *,
    access: str | None = None,
    refresh: str | None = None,
    access_id: str | None = None,
    refresh_id: str | None = None,
) -> GrantView:
    return GrantView(
        {name: Secret(value) for name, value in credentials.items()},
        settings or {},
        AccessToken(Secret(access), "Bearer", NOW, 3_600.0, 0.5, access_id) if access else None,
        RefreshToken(Secret(refresh), NOW, None, 0.5, refresh_id) if refresh else None,
        Signer(StoppedClock(), SystemEntropy()),
    )


@dataclass(frozen=True)
class Sent:
    """A request as a server reads it."""

    request: Request

    @property
    def line(self) -> str:
        parts = urlsplit(self.request.url)
        return f"{self.request.method} {parts.scheme}://{parts.netloc}{parts.path}"

    @property
    def headers(self) -> dict[str, str]:
        """Without the Accept that all have."""
        assert ("Accept", JSON) in self.request.headers
        found = {name: value for name, value in self.request.headers if name != "Accept"}
        assert len(found) == len(self.request.headers) - 1
        return found

    @property
    def served(self) -> http.Request:
        """As the test providers take it apart: strictly."""
        parts = urlsplit(self.request.url)
        fields = tuple((name.lower(), value) for name, value in self.request.headers)
        return http.Request(self.request.method, parts.path, parts.query, fields, self.request.body, 1, None)

    @property
    def json(self) -> dict[str, object]:
        return bodies.json_object(self.served)

    @property
    def form(self) -> dict[str, str]:
        return bodies.form(self.served)

    @property
    def multipart(self) -> dict[str, str]:
        return bodies.multipart(self.served)

    @property
    def query(self) -> dict[str, str]:
        return bodies.query(self.served)


def begin(exchange: Exchange) -> Request | Outcome:
    """The first request of an exchange, or the outcome of one that asks nothing."""
    try:
        step = next(exchange)
    except StopIteration as stop:
        ended: Outcome = stop.value
        return ended
    exchange.close()
    assert isinstance(step, Request)
    return step


def sent(exchange: Exchange) -> Sent:
    """The first request of an exchange."""
    step = next(exchange)
    exchange.close()
    assert isinstance(step, Request)
    return Sent(step)


# What is not the provider's, or says "later" by its status alone, whatever dialect, operation and body (law 12).
# name → the answer, and what it means. A dialect's own answers are in its own table. Where a password was sent, it may
# be what was refused: see `meant`.
TOKENS_IN_A_BODY = {"access_token": "leaked-access", "refresh_token": "leaked-refresh", "expires_in": 60}
KILLING = {
    "error": "invalid_grant",
    "title": "Authentication",
    "detail": "used",
    "errors": [{"message": "used"}],
    "message": "used",
}
FOREIGN: dict[str, tuple[Response, str]] = {
    "a captive portal's 200": (html(200), "unreadable"),
    "a captive portal's 403": (html(403), "strange"),
    "a proxy's 400": (html(400, b"<h1>Bad Request</h1>"), "strange"),
    "a proxy's 401": (html(401), "strange"),
    "a proxy's 404": (html(404), "strange"),
    "a proxy's 407": (html(407), "strange"),
    "a proxy's 407 in json": (answer(407, KILLING), "strange"),
    "a redirect": (html(302, b"", {"location": "https://portal.example/"}), "strange"),
    "a redirect with tokens": (answer(302, TOKENS_IN_A_BODY), "strange"),
    "not modified": (answer(304), "strange"),
    "nothing in a 200": (answer(200), "unreadable"),
    "nothing in a 400": (answer(400), "silent"),
    "nothing in a 401": (answer(401), "silent"),
    "blanks": (answer(200, b" \r\n"), "unreadable"),
    "json that breaks off": (answer(200, b'{"access_token": "test-only-garb'), "unreadable"),
    "an error that breaks off": (answer(400, b'{"error": "invalid_grant", "detail": "us'), "strange"),
    "a page with tokens and more in it": (html(200, b'<p>{"access_token": "a"}<p>{}'), "unreadable"),
    "an error in a page": (html(200, b'<p>{"error": "invalid_grant"}'), "unreadable"),
    "two values": (answer(200, b'{"access_token": "a"} {"access_token": "b"}'), "unreadable"),
    "two in an array": (answer(200, [TOKENS_IN_A_BODY, TOKENS_IN_A_BODY]), "unreadable"),
    "text": (answer(200, "leaked-access"), "unreadable"),
    "a number": (answer(200, 17), "unreadable"),
    "null": (answer(200, None), "unreadable"),
    "an array in a 400": (answer(400, [KILLING]), "strange"),
    "an empty object": (answer(200, {}), "unreadable"),
    "an empty token": (answer(200, {"access_token": "", "refresh_token": ""}), "unreadable"),
    "a token of the wrong type": (answer(200, {"access_token": ["a"], "refresh_token": {}}), "unreadable"),
    "a token that is true": (answer(200, {"access_token": True, "refresh_token": True}), "unreadable"),
    "not a number": (answer(200, b'{"access_token": NaN}'), "unreadable"),
    "latin-1": (answer(200, '{"access_token": "ü"}'.encode("latin-1")), "unreadable"),
    "deep nesting": (answer(200, b"[" * 200_000), "unreadable"),
    "a number of a million digits": (answer(200, b'{"access_token": %s}' % (b"1" * 1_000_000)), "unreadable"),
    "too slow": (answer(408, KILLING), "unanswered"),
    "too early": (answer(425, KILLING), "limited"),
    "too many": (answer(429, KILLING), "limited"),
    "too many, from a gateway": (html(429), "limited"),
    "a 500 with tokens": (answer(500, TOKENS_IN_A_BODY), "failed"),
    "a 500 that would kill": (answer(500, KILLING), "failed"),
    "a 500 in html": (html(500), "failed"),
    "a 501": (answer(501, KILLING), "failed"),
    "a 502": (html(502), "unavailable"),
    "a 503 that would kill": (answer(503, KILLING), "unavailable"),
    "a 503 with tokens": (answer(503, TOKENS_IN_A_BODY), "unavailable"),
    "a 504": (html(504), "unavailable"),
    "a 521 of a content network": (html(521), "failed"),
}


def meant(name: str, request: Request) -> str:
    """What a row of the table means in answer to the request."""
    heard, means = FOREIGN[name]
    unclear = request.password and heard.status in (400, 401, 403, 422) and means == "strange"
    return "silent" if unclear else means


# Tokens that no Authorization header can carry, and that a store or a log would choke on.
UNFIT = {
    "a line break": "abc\r\nX-Injected: 1",
    "a newline at its end": "abc\n",
    "a zero byte": "abc\0def",
    "an escape": "abc\x1b[31m",
    "half a character": "abc\ud800",
}
