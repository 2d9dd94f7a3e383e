# The four systems that ship as recipes, row by row of provider-apis.md: what is sent, and what each answer means.
from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange import Exchange, Request, Response
from brokerd.core.outcome import Issued, Rejected, RetryLater, Tokens
from brokerd.core.record import Doomed
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe import RecipeDialect
from tests.dialects.answers import (
    BASE,
    NOW,
    answer,
    begin,
    drive,
    http_date,
    jwt_of,
    meaning,
    outcome,
    recipe,
    sent,
    view,
    words,
)

IX, OCCAM, TREEZOR, CLICK2MAIL = map(recipe, ("ix-api", "occam", "treezor", "click2mail"))
PASSWORD = "pä ss&word=+/%41\"'"
TWO = {"access": "access-1", "refresh": "refresh-1"}

IX_GRANT = view({"api_key": "key-1", "api_secret": "secret-1"}, **TWO)
BY_PASSWORD = view({"username": "me@occam.example", "password": PASSWORD}, **TWO)
BY_KEY = view({"key": "key-1/+=&"})
CLIENT = {"client_id": "client-1", "client_secret": "secret-1"}
TREEZOR_CLIENT = view(CLIENT, **TWO)
TREEZOR_USER = view({**CLIENT, "username": "user-1", "password": PASSWORD}, {"scope": ["read", "write"]}, **TWO)
LONG_ONLY = view(CLIENT, refresh="long-1", refresh_id="tok_2")
LONG_AND_SHORT = view(CLIENT, access="short-1", refresh="long-1", access_id="tok_1", refresh_id="tok_2")


def tokens_of(exchange: Exchange, heard: Response) -> Tokens:
    found = outcome(exchange, heard)
    assert isinstance(found, Issued), found
    return found.tokens


def revoking(dialect: RecipeDialect, seen: GrantView, kind: str) -> Exchange:
    doomed = Doomed(access_token=seen.access_token) if kind == "access" else Doomed(refresh_token=seen.refresh_token)
    exchange = dialect.revoke(seen, doomed)
    assert exchange is not None
    return exchange


# What is sent


def test_ix_api_issues_from_key_and_secret() -> None:
    request = sent(IX.issue(IX_GRANT))
    assert request.line == f"POST {BASE}/auth/token"
    assert request.headers == {"Content-Type": "application/json"}
    assert request.json == {"api_key": "key-1", "api_secret": "secret-1"}


def test_ix_api_refreshes_with_the_refresh_token() -> None:
    request = sent(IX.renew(IX_GRANT))
    assert request.line == f"POST {BASE}/auth/refresh"
    assert request.json == {"refresh_token": "refresh-1"}


def test_ix_api_has_no_revocation() -> None:
    assert IX.revoke(IX_GRANT, Doomed(access_token=IX_GRANT.access_token)) is None
    assert IX.revoke(IX_GRANT, Doomed(refresh_token=IX_GRANT.refresh_token)) is None


def test_occam_issues_from_a_password() -> None:
    request = sent(OCCAM.issue(BY_PASSWORD))
    assert request.line == f"POST {BASE}/auth/access-token"
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert request.form == {"grant_type": "password", "username": "me@occam.example", "password": PASSWORD}


def test_occam_sends_scope_and_client_where_they_are_given() -> None:
    more = view({"username": "u", "password": "p", **CLIENT}, {"scope": ["a", "b"]})
    assert sent(OCCAM.issue(more)).form == {
        "grant_type": "password",
        "username": "u",
        "password": "p",
        "scope": "a b",
        **CLIENT,
    }


def test_occam_issues_from_a_key_in_the_query() -> None:
    request = sent(OCCAM.issue(BY_KEY))
    assert request.line == f"GET {BASE}/auth/access-token"
    assert request.query == {"key": "key-1/+=&"}
    assert request.headers == {}
    assert request.request.body == b""


def test_occam_refreshes_with_the_refresh_token() -> None:
    request = sent(OCCAM.renew(BY_PASSWORD))
    assert request.line == f"POST {BASE}/auth/refresh-token"
    assert request.json == {"refresh_token": "refresh-1"}


def test_treezor_takes_multipart_and_always_a_grant_type() -> None:
    request = sent(TREEZOR.issue(TREEZOR_CLIENT))
    assert request.line == f"POST {BASE}/oauth/token"
    assert request.multipart == {"grant_type": "client_credentials", **CLIENT}
    with_scope = view(CLIENT, {"scope": ["read", "write"]})
    assert sent(TREEZOR.issue(with_scope)).multipart["scope"] == "read write"


def test_treezor_uses_the_password_grant_where_a_user_is_named() -> None:
    request = sent(TREEZOR.issue(TREEZOR_USER))
    user = {"username": "user-1", "password": PASSWORD, "scope": "read write"}
    assert request.multipart == {"grant_type": "password", **CLIENT, **user}


def test_treezor_refreshes_at_the_same_endpoint() -> None:
    request = sent(TREEZOR.renew(TREEZOR_USER))
    assert request.line == f"POST {BASE}/oauth/token"
    assert request.multipart == {"grant_type": "refresh_token", **CLIENT, "refresh_token": "refresh-1"}


def test_click2mail_issues_a_long_token_from_a_secret() -> None:
    request = sent(CLICK2MAIL.issue(view(CLIENT, {"scope": ["jobs:read"]})))
    assert request.line == f"POST {BASE}/auth/tokens/long"
    assert request.headers == {"X-Client-Id": "client-1", "Content-Type": "application/json"}
    assert request.json == {"grant_type": "client_credentials", **CLIENT, "scopes": ["jobs:read"]}


def test_click2mail_keeps_the_type_of_ttl_seconds_and_leaves_out_what_is_not_there() -> None:
    of_the_provider = recipe("click2mail", settings={"ttl_seconds": 86_400})
    assert sent(of_the_provider.issue(view(CLIENT))).json == {
        "grant_type": "client_credentials",
        **CLIENT,
        "ttl_seconds": 86_400,
    }
    of_the_grant = sent(of_the_provider.issue(view(CLIENT, {"ttl_seconds": 3_600}))).json
    assert of_the_grant["ttl_seconds"] == 3_600


def test_click2mail_rotates_with_the_short_token_instead_of_a_secret() -> None:
    request = sent(CLICK2MAIL.issue(LONG_AND_SHORT))
    assert request.line == f"POST {BASE}/auth/tokens/long"
    assert request.headers["Authorization"] == "Bearer short-1"
    assert request.headers["X-Client-Id"] == "client-1"
    assert request.json == {"grant_type": "client_credentials", "client_id": "client-1"}


def test_click2mail_issues_from_an_assertion() -> None:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    given_ = {"client_id": "client-1", "assertion_type": kind, "assertion": "signed"}
    request = sent(CLICK2MAIL.issue(view(given_)))
    assert request.json == {"grant_type": "assertion", **given_}


def test_click2mail_gets_a_short_token_with_the_long_one() -> None:
    request = sent(CLICK2MAIL.renew(LONG_ONLY))
    assert request.line == f"POST {BASE}/auth/tokens/short"
    assert request.headers == {"Authorization": "Bearer long-1"}
    assert request.request.body == b""


@pytest.mark.parametrize(("kind", "identifier"), [("access", "tok_1"), ("refresh", "tok_2")])
def test_click2mail_revokes_each_token_by_its_id(kind: str, identifier: str) -> None:
    request = sent(revoking(CLICK2MAIL, LONG_AND_SHORT, kind))
    assert request.line == f"POST {BASE}/auth/tokens/{identifier}/revoke"
    assert request.headers == {"Authorization": "Bearer long-1"}


def test_click2mail_cannot_revoke_what_it_has_no_id_for() -> None:
    seen = view(CLIENT, access="short-1", refresh="long-1")
    assert CLICK2MAIL.revoke(seen, Doomed(access_token=seen.access_token)) is None


@pytest.mark.parametrize("base", ["https://api.example/base", "https://api.example/base/"])
def test_a_slash_at_the_end_of_the_base_url_makes_no_difference(base: str) -> None:
    assert sent(recipe("ix-api", base).issue(IX_GRANT)).request.url == "https://api.example/base/auth/token"


# What comes, told in time

HOUR = 3_600.0


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("operation", [IX.issue, IX.renew])
def test_ix_api_gives_a_pair_of_jwts_that_name_their_own_lifetimes(
    operation: Callable[[GrantView], Exchange], status: int
) -> None:
    pair = {"access_token": jwt_of(lifetime=HOUR), "refresh_token": jwt_of(lifetime=24 * HOUR)}
    found = tokens_of(operation(IX_GRANT), answer(status, pair))
    assert found.access_token is not None
    assert found.refresh_token is not None
    assert found.access_token.value == Secret(pair["access_token"])
    assert found.refresh_token.value == Secret(pair["refresh_token"])
    assert found.access_token.lifetime == pytest.approx(HOUR, abs=1.5)
    assert found.refresh_token.lifetime == pytest.approx(24 * HOUR, abs=1.5)


def test_ix_api_tokens_that_are_no_jwts_have_no_known_expiry() -> None:
    found = tokens_of(IX.issue(IX_GRANT), answer(201, {"access_token": "opaque", "refresh_token": "opaque-2"}))
    assert found.access_token is not None
    assert found.access_token.lifetime is None


@pytest.mark.parametrize("operation", [OCCAM.issue, OCCAM.renew])
def test_occam_names_the_ends_of_both_tokens_in_unix_seconds(operation: Callable[[GrantView], Exchange]) -> None:
    heard = {
        "token_type": "Bearer",
        "access_token": "access-2",
        "expires_at": int(NOW.wall) + 3_600,
        "refresh_token": "refresh-2",
        "refresh_token_expires_at": int(NOW.wall) + 86_400,
    }
    found = tokens_of(operation(BY_PASSWORD), answer(200, heard))
    assert found.access_token is not None
    assert found.refresh_token is not None
    assert found.access_token.lifetime == pytest.approx(3_600, abs=0.5)
    assert found.refresh_token.lifetime == pytest.approx(86_400, abs=0.5)
    assert found.token_type == "Bearer"


def test_occam_by_key_gives_no_refresh_token() -> None:
    found = tokens_of(OCCAM.issue(BY_KEY), answer(200, {"access_token": "a", "expires_at": int(NOW.wall) + 60}))
    assert found.refresh_token is None


@pytest.mark.parametrize(
    ("value", "lifetime"),
    [
        (3_600, 3_600.0),
        ("3600", 3_600.0),
        (3_600.5, 3_600.5),
        (0, 0.0),
        (-5, -5.0),
        (10**12, None),  # a way of writing "never"
        (1e300, None),
        (None, None),
        ("soon", None),
        ([], None),
        (True, None),
        ("1e400", None),
    ],
)
def test_treezor_names_lifetimes_in_seconds_one_way_or_another(value: object, lifetime: float | None) -> None:
    heard = {"token_type": "bearer", "access_token": "a", "expires_in": value}
    found = tokens_of(TREEZOR.issue(TREEZOR_CLIENT), answer(200, heard))
    assert found.access_token is not None
    assert found.access_token.lifetime == lifetime
    assert found.token_type == "bearer"
    assert found.refresh_token is None


def test_treezor_gives_a_refresh_token_for_a_password_and_may_keep_it_at_a_refresh() -> None:
    both = answer(200, {"access_token": "a", "expires_in": 60, "refresh_token": "refresh-2"})
    issued = tokens_of(TREEZOR.issue(TREEZOR_USER), both)
    assert issued.refresh_token is not None
    assert issued.refresh_token.value == Secret("refresh-2")
    assert tokens_of(TREEZOR.renew(TREEZOR_USER), answer(200, {"access_token": "a"})).refresh_token is None


END = datetime.fromtimestamp(int(NOW.wall) + 86_400, UTC)


@pytest.mark.parametrize(
    "written",
    [
        END.isoformat(),
        END.isoformat().replace("+00:00", "Z"),
        END.astimezone(timezone(timedelta(hours=-5))).isoformat(),
        END.astimezone(timezone(timedelta(hours=5, minutes=45))).isoformat(),
        END.astimezone(timezone(timedelta(hours=14))).isoformat(),
        END.isoformat(timespec="microseconds"),
        END.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        END.isoformat(timespec="microseconds").replace("+00:00", "123Z"),  # nanoseconds
        END.isoformat(sep=" "),
        END.strftime("%Y%m%dT%H%M%SZ"),
    ],
)
def test_click2mail_names_the_end_of_a_long_token_in_iso_8601(written: str) -> None:
    heard = {"access_token": "long-2", "expires_in": 17, "expires_at": written, "token_id": "tok_9", "scopes": []}
    found = tokens_of(CLICK2MAIL.issue(view(CLIENT)), answer(201, heard, {"x-token-id": "other"}))
    assert found.access_token is None
    assert found.refresh_token is not None
    assert found.refresh_token.lifetime == pytest.approx(86_400, abs=0.5)
    assert found.refresh_token.id == "tok_9"


@pytest.mark.parametrize("written", ["tomorrow", "2026-13-45T00:00:00Z", "", None, [], "99999-01-01T00:00:00Z", "-1"])
def test_an_end_that_cannot_be_read_is_not_known(written: object) -> None:
    heard = {"access_token": "long-2", "expires_at": written, "token_id": "tok_9"}
    found = tokens_of(CLICK2MAIL.issue(view(CLIENT)), answer(201, heard))
    assert found.refresh_token is not None
    assert found.refresh_token.lifetime is None or found.refresh_token.lifetime < 0


@pytest.mark.parametrize("start", [CLICK2MAIL.issue, CLICK2MAIL.renew])
def test_click2mail_may_name_the_id_in_a_header_only(start: Callable[[GrantView], Exchange]) -> None:
    heard = answer(201, {"access_token": "x", "expires_in": 900}, {"x-token-id": "tok/ 9"})
    found = tokens_of(start(LONG_ONLY), heard)
    token = found.access_token or found.refresh_token
    assert token is not None
    assert token.id == "tok/ 9"


def test_a_numeric_id_is_an_id() -> None:
    found = tokens_of(CLICK2MAIL.renew(LONG_ONLY), answer(201, {"access_token": "x", "token_id": 4711}))
    assert found.access_token is not None
    assert found.access_token.id == "4711"


def test_click2mail_short_tokens_come_alone() -> None:
    found = tokens_of(CLICK2MAIL.renew(LONG_ONLY), answer(201, {"access_token": "s", "expires_in": 900}))
    assert found.refresh_token is None
    assert found.access_token is not None
    assert found.access_token.lifetime == 900


@pytest.mark.parametrize("skew", [-90.0, 90.0])
@pytest.mark.parametrize(
    ("start", "heard"),
    [
        (lambda: OCCAM.issue(BY_KEY), lambda clock: {"access_token": "a", "expires_at": int(clock) + 3_600}),
        (lambda: IX.issue(IX_GRANT), lambda clock: {"access_token": jwt_of(clock), "refresh_token": "r"}),
        (lambda: IX.issue(IX_GRANT), lambda clock: {"access_token": jwt_of(clock, iat=None), "refresh_token": "r"}),
    ],
    ids=["occam", "ix-api", "a JWT without iat"],
)
def test_a_providers_clock_that_is_wrong_by_90_seconds_costs_a_token_no_more_than_two(
    start: Callable[[], Exchange], heard: Callable[[float], dict[str, Any]], skew: float
) -> None:
    clock = NOW.wall + skew
    body = heard(clock)
    found = tokens_of(start(), answer(200, body, {"date": http_date(clock)}))
    assert found.access_token is not None
    assert found.access_token.lifetime is not None
    assert HOUR - 2 <= found.access_token.lifetime <= HOUR


@pytest.mark.parametrize("skew", [-90.0, 90.0])
def test_a_jwt_lives_as_long_as_it_says_even_where_the_provider_tells_no_date(skew: float) -> None:
    pair = {"access_token": jwt_of(NOW.wall + skew), "refresh_token": "r"}
    found = tokens_of(IX.issue(IX_GRANT), answer(200, pair))
    assert found.access_token is not None
    assert found.access_token.lifetime == HOUR - 1  # `iat` may have cut off nearly a second


# What comes, row by row


def problem(status: int, title: str = "Some fields have validation errors.") -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": "it says why", "instance": "/"}
    return answer(status, body, {"content-type": "application/problem+json"})


def detail(status: int, text: object) -> Response:
    return answer(status, {"detail": text})


def errors(status: int, code: str = "invalid_grant") -> Response:
    return answer(status, {"errors": [{"type": "t", "code": code, "message": "it says why", "docUrl": "https://x"}]})


def auth_error(status: int, message: str = "it says why") -> Response:
    return answer(status, {"code": "invalid_token", "message": message})


VALIDATION = [{"loc": ["body", "password"], "msg": "it says why", "type": "value_error"}]
ROWS: dict[str, tuple[Callable[[], Exchange], Response, str]] = {
    "ix-api issue 400": (lambda: IX.issue(IX_GRANT), problem(400), "misconfigured"),
    "ix-api issue 401": (lambda: IX.issue(IX_GRANT), problem(401, "Authentication"), "misconfigured"),
    "ix-api issue 403": (lambda: IX.issue(IX_GRANT), problem(403), "misconfigured"),
    "ix-api issue 404": (lambda: IX.issue(IX_GRANT), problem(404), "strange"),
    "ix-api refresh 400": (lambda: IX.renew(IX_GRANT), problem(400), "rejected"),
    "ix-api refresh 401": (lambda: IX.renew(IX_GRANT), problem(401, "Authentication"), "rejected"),
    "ix-api refresh 403": (lambda: IX.renew(IX_GRANT), problem(403), "misconfigured"),
    "ix-api refresh 404": (lambda: IX.renew(IX_GRANT), problem(404), "strange"),
    "occam password 400": (lambda: OCCAM.issue(BY_PASSWORD), detail(400, "Invalid email or password"), "misconfigured"),
    "occam password 422": (lambda: OCCAM.issue(BY_PASSWORD), detail(422, VALIDATION), "misconfigured"),
    "occam key 400": (lambda: OCCAM.issue(BY_KEY), detail(400, "Invalid key"), "misconfigured"),
    "occam key 422": (lambda: OCCAM.issue(BY_KEY), detail(422, VALIDATION), "misconfigured"),
    "occam refresh 400": (
        lambda: OCCAM.renew(BY_PASSWORD),
        detail(400, "Refresh token expired or is already used"),
        "rejected",
    ),
    "occam refresh 404": (lambda: OCCAM.renew(BY_PASSWORD), detail(404, "Refresh token does not exist"), "rejected"),
    "occam refresh 404 of a wrong base_url": (
        lambda: OCCAM.renew(BY_PASSWORD),
        detail(404, "Not Found"),
        "strange",
    ),
    "occam refresh 422": (lambda: OCCAM.renew(BY_PASSWORD), detail(422, VALIDATION), "misconfigured"),
    "treezor issue 400": (lambda: TREEZOR.issue(TREEZOR_USER), errors(400), "misconfigured"),
    "treezor issue 401": (lambda: TREEZOR.issue(TREEZOR_USER), errors(401, "invalid_client"), "misconfigured"),
    "treezor issue 403": (lambda: TREEZOR.issue(TREEZOR_CLIENT), errors(403), "misconfigured"),
    "treezor refresh 400": (lambda: TREEZOR.renew(TREEZOR_USER), errors(400), "rejected"),
    "treezor refresh 401": (lambda: TREEZOR.renew(TREEZOR_USER), errors(401, "invalid_client"), "misconfigured"),
    "treezor errors with a 200": (lambda: TREEZOR.renew(TREEZOR_USER), errors(200), "unreadable"),
    "treezor errors with a 500": (lambda: TREEZOR.renew(TREEZOR_USER), errors(500), "failed"),
    "click2mail long 400": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(400), "misconfigured"),
    "click2mail long 401": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(401), "misconfigured"),
    "click2mail long 403": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(403), "misconfigured"),
    "click2mail long 429": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(429), "limited"),
    "click2mail rotation 401": (lambda: CLICK2MAIL.issue(LONG_AND_SHORT), auth_error(401), "misconfigured"),
    "click2mail rotation 403": (lambda: CLICK2MAIL.issue(LONG_AND_SHORT), auth_error(403), "misconfigured"),
    "click2mail short 400": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(400), "misconfigured"),
    "click2mail short 401": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(401), "rejected"),
    "click2mail short 429": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(429), "limited"),
    "click2mail revoke 204": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), answer(204), "done"),
    "click2mail revoke 200": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), answer(200, {}), "done"),
    "click2mail revoke 404": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(404), "done"),
    "click2mail revoke 401": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(401), "misconfigured"),
    "click2mail revoke 429": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(429), "limited"),
    "click2mail revoke long 204": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), answer(204), "done"),
    "click2mail revoke long 404": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), auth_error(404), "done"),
    # The long token cannot revoke itself any more: it is dead, which is what was wanted.
    "click2mail revoke long 401": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), auth_error(401), "done"),
    # Statuses that no document names, in the provider's own form: nobody knows, so nothing dies.
    "a teapot": (lambda: OCCAM.renew(BY_PASSWORD), detail(418, "I am a teapot"), "strange"),
    "payment required": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(402), "strange"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_document_means(row: str) -> None:
    start, heard, means = ROWS[row]
    found = outcome(start(), heard)
    assert meaning(found) == means
    if means in ("rejected", "misconfigured"):
        assert str(heard.status) in words(found)
        assert any(
            said in words(found)
            for said in ("says why", "password", "key", "token", "validation", "Authent", "Not Found")
        )


@pytest.mark.parametrize("row", [row for row, (_, _, means) in ROWS.items() if means in ("rejected", "misconfigured")])
def test_a_row_without_the_words_of_the_provider_is_not_the_providers(row: str) -> None:
    start, heard, _ = ROWS[row]
    assert meaning(outcome(start(), answer(heard.status, b""))) == "silent"
    first = begin(start())
    assert isinstance(first, Request)
    for body in (b"{}", b"[]", b'"no"', b"<html>"):
        means = "silent" if first.password else "strange"  # it may be the password that is refused (law 7)
        assert meaning(outcome(start(), answer(heard.status, body))) == means


def test_a_429_says_how_long_it_takes() -> None:
    found = outcome(CLICK2MAIL.renew(LONG_ONLY), answer(429, {"code": "x", "message": "y"}, {"retry-after": "7"}))
    assert isinstance(found, RetryLater)
    assert found.after == 7.0


# What must not be shown


@pytest.mark.parametrize(
    ("start", "echo", "secret"),
    [
        (lambda: OCCAM.issue(BY_PASSWORD), lambda text: detail(400, f"wrong (input was: {text})"), PASSWORD),
        (lambda: OCCAM.issue(BY_KEY), lambda text: detail(400, f"wrong (input was: {text})"), "key-1/+=&"),
        (
            lambda: OCCAM.renew(BY_PASSWORD),
            lambda text: detail(422, [{"loc": ["body"], "msg": f"bad: {text}"}]),
            "refresh-1",
        ),
        (lambda: OCCAM.renew(BY_PASSWORD), lambda text: detail(422, {"input": {"refresh_token": text}}), "refresh-1"),
        (lambda: IX.issue(IX_GRANT), lambda text: problem(401, f"bad {text}"), "secret-1"),
        (lambda: TREEZOR.issue(TREEZOR_USER), lambda text: answer(400, {"errors": [{"message": text}]}), PASSWORD),
        (lambda: CLICK2MAIL.renew(LONG_ONLY), lambda text: auth_error(401, f"bad {text}"), "long-1"),
    ],
)
def test_an_echoed_request_shows_no_secret(
    start: Callable[[], Exchange], echo: Callable[[str], Response], secret: str
) -> None:
    request = sent(start()).request
    query = request.url.partition("?")[2]
    for echoed in (secret, request.body.decode(), query, repr(dict(request.headers))):
        found = words(outcome(start(), echo(echoed)))
        assert secret not in found
        assert "refresh-1" not in found
        assert "Bearer long-1" not in found


@pytest.mark.parametrize("secret", ["key-1/+=&", "key-1%2F%2B%3D%26"])
def test_the_key_in_the_query_is_in_no_repr(secret: str) -> None:
    assert secret not in repr(sent(OCCAM.issue(BY_KEY)).request)


# What spends, and what can be done


@pytest.mark.parametrize(
    ("dialect", "seen", "ability"),
    [
        (IX, IX_GRANT, Ability(issue=True, renew=True, renew_spends=True)),
        (IX, view({}), Ability(issue=False, renew=True, renew_spends=True)),
        (IX, view({"api_key": "k"}), Ability(issue=False, renew=True, renew_spends=True)),
        (OCCAM, BY_PASSWORD, Ability(issue=True, renew=True, renew_spends=True)),
        (OCCAM, BY_KEY, Ability(issue=True, renew=True, renew_spends=True)),
        (TREEZOR, TREEZOR_CLIENT, Ability(issue=True, renew=True, renew_spends=True)),
        (CLICK2MAIL, view(CLIENT), Ability(issue=True, renew=True)),
        (CLICK2MAIL, LONG_ONLY, Ability(issue=True, renew=True)),
        (CLICK2MAIL, LONG_AND_SHORT, Ability(issue=True, renew=True, issue_spends=True)),
        (CLICK2MAIL, view({"client_id": "c"}, refresh="long-1"), Ability(issue=False, renew=True)),
        (
            CLICK2MAIL,
            view({"client_id": "c"}, access="short-1", refresh="long-1"),
            Ability(issue=True, renew=True, issue_spends=True),
        ),
    ],
)
def test_an_ability_says_what_can_be_done_and_what_it_may_cost(
    dialect: RecipeDialect, seen: GrantView, ability: Ability
) -> None:
    assert dialect.ability(seen) == ability
    if ability.issue:
        assert sent(dialect.issue(seen)).request.spends is ability.issue_spends
    if seen.refresh_token is not None:
        assert sent(dialect.renew(seen)).request.spends is ability.renew_spends


@pytest.mark.parametrize("dialect", [IX, OCCAM, TREEZOR, CLICK2MAIL])
def test_without_credentials_an_issue_ends_before_it_asks(dialect: RecipeDialect) -> None:
    requests, found = drive(dialect.issue(view({})))
    assert requests == []
    assert meaning(found) == "misconfigured"


# What a record is bound to (law 15)

IDENTITIES = [
    (IX, IX_GRANT),
    (OCCAM, BY_PASSWORD),
    (TREEZOR, TREEZOR_USER),
    (CLICK2MAIL, LONG_ONLY),
]


@pytest.mark.parametrize(("dialect", "seen"), IDENTITIES)
@pytest.mark.parametrize("base", ["https://api.other", "https://api.example:8443", "http://api.example"])
def test_another_origin_is_another_identity(dialect: RecipeDialect, seen: GrantView, base: str) -> None:
    moved = recipe(dialect.recipe.name, base)
    assert moved.identity(seen) != dialect.identity(seen)


def test_another_recipe_is_another_identity() -> None:
    assert TREEZOR.identity(view(CLIENT)) != CLICK2MAIL.identity(view(CLIENT))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        (IX, "api_key"),
        (OCCAM, "username"),
        (OCCAM, "client_id"),
        (TREEZOR, "client_id"),
        (TREEZOR, "username"),
        (CLICK2MAIL, "client_id"),
    ],
)
def test_another_client_or_user_is_another_identity(dialect: RecipeDialect, name: str) -> None:
    one = {"api_key": "a", "username": "b", "client_id": "c"}
    assert dialect.identity(view(one)) != dialect.identity(view({**one, name: "other"}))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(IX, "api_secret"), (OCCAM, "password"), (OCCAM, "key"), (TREEZOR, "client_secret"), (CLICK2MAIL, "assertion")],
)
def test_another_secret_is_the_same_identity_and_is_not_in_it(dialect: RecipeDialect, name: str) -> None:
    one, other = view({"client_id": "c", name: "hunter2"}), view({"client_id": "c", name: "hunter3"})
    assert dialect.identity(one) == dialect.identity(other)
    assert "hunter" not in repr(dialect.identity(one))


def test_another_scope_is_the_same_identity() -> None:
    assert TREEZOR.identity(view(CLIENT, {"scope": ["a"]})) == TREEZOR.identity(view(CLIENT, {"scope": ["b"]}))


# What cannot be smuggled

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
dots = st.sampled_from(
    [".", "..", "...", "../..", "%2e%2e", "a/../../b", "?x=1", "#x", "a\r\nb", "\\..\\", " ", ";x", "//evil"]
)


@given(any_text | dots)
def test_a_token_id_cannot_leave_its_segment(identifier: str) -> None:
    seen = view(CLIENT, access="short-1", refresh="long-1", access_id=identifier)
    begun = begin(revoking(CLICK2MAIL, seen, "access"))
    if not isinstance(begun, Request):
        assert identifier in (".", "..")
        assert meaning(begun) == "misconfigured"
        return
    url = begun.url
    assert url.isascii()
    assert url.isprintable()
    start, end = f"{BASE}/auth/tokens/", "/revoke"
    assert url.startswith(start)
    assert url.endswith(end)
    segment = url.removeprefix(start).removesuffix(end)
    assert not set(segment) & set("/?#\\ ;")
    assert segment not in (".", "..")
    assert unquote(segment) == identifier


@given(any_text)
def test_a_header_cannot_be_followed_by_another_one(text: str) -> None:
    begun = begin(CLICK2MAIL.renew(view(CLIENT, refresh=text)))
    if isinstance(begun, Request):
        assert dict(begun.headers)["Authorization"] == f"Bearer {text}"
        assert not any(set(value) & set("\r\n\0") for _, value in begun.headers)
    else:
        assert meaning(begun) == "misconfigured"
        assert set(text) & set("\r\n\0")
        assert len(text) < 4 or text not in words(begun)


@given(any_text, any_text)
def test_a_form_carries_any_text_and_nothing_more(user: str, password: str) -> None:
    seen = view({"username": user, "password": password})
    assert sent(OCCAM.issue(seen)).form == {"grant_type": "password", "username": user, "password": password}


@given(any_text, any_text)
def test_json_carries_any_text_and_nothing_more(key: str, secret: str) -> None:
    assert sent(IX.issue(view({"api_key": key, "api_secret": secret}))).json == {"api_key": key, "api_secret": secret}


@given(any_text)
def test_a_query_carries_any_text_and_nothing_more(key: str) -> None:
    request = sent(OCCAM.issue(view({"key": key})))
    assert request.query == {"key": key}
    assert request.line == f"GET {BASE}/auth/access-token"


@given(any_text | st.sampled_from(["\r\n--x--\r\n", "--", 'a"; name="b', "\r\n\r\n"]), any_text)
def test_a_multipart_form_carries_any_text_and_nothing_more(user: str, password: str) -> None:
    seen = view({**CLIENT, "username": user, "password": password})
    request = sent(TREEZOR.issue(seen)).request
    boundary = dict(request.headers)["Content-Type"].partition("boundary=")[2]
    parts = request.body.decode().split(f"--{boundary}")
    assert parts[0] == ""
    assert parts[-1] == "--\r\n"
    found = {}
    for part in parts[1:-1]:
        head, _, value = part.removeprefix("\r\n").removesuffix("\r\n").partition("\r\n\r\n")
        found[head.removeprefix('Content-Disposition: form-data; name="').removesuffix('"')] = value
    assert found == {"grant_type": "password", **CLIENT, "username": user, "password": password}


def test_a_rejection_is_of_the_refresh_token_alone() -> None:
    assert isinstance(outcome(OCCAM.renew(BY_PASSWORD), detail(400, "used")), Rejected)
