# ix-api, occam, treezor and click2mail: what each operation sends, and what its answer means in time.
from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from brokerd.core.exchange.outcomes import Rejected
from brokerd.core.exchange.steps import Exchange
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import GrantView
from tests.unit.dialects.exchange_driver import BASE, NOW, answer, http_date, jwt_of, outcome, recipe, sent, view
from tests.unit.dialects.recipe.built_in_grants import (
    BY_KEY,
    BY_PASSWORD,
    CLICK2MAIL,
    CLIENT,
    IX,
    IX_GRANT,
    LONG_AND_SHORT,
    LONG_ONLY,
    OCCAM,
    PASSWORD,
    TREEZOR,
    TREEZOR_CLIENT,
    TREEZOR_USER,
    detail,
    revoking,
    tokens_of,
)


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
    assert IX.revoke(IX_GRANT, PendingRevocation(access_token=IX_GRANT.access_token)) is None
    assert IX.revoke(IX_GRANT, PendingRevocation(refresh_token=IX_GRANT.refresh_token)) is None


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
    assert CLICK2MAIL.revoke(seen, PendingRevocation(access_token=seen.access_token)) is None


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


def test_a_rejection_is_of_the_refresh_token_alone() -> None:
    assert isinstance(outcome(OCCAM.renew(BY_PASSWORD), detail(400, "used")), Rejected)
