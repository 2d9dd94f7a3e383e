# OAuth 2.0: what is sent, every error code of RFC 6749 and 7009, and what real servers do beyond them.
from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.outcomes import Issued, RetryLater, Tokens
from brokerd.core.exchange.steps import Exchange, Request, Response
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.client_auth import METHODS
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES
from tests.unit.dialects.exchange_driver import (
    NOW,
    answer,
    begin,
    http_date,
    jwt_of,
    meaning,
    outcome,
    sent,
    view,
    words,
)
from tests.unit.dialects.oauth2.oauth2_grants import GRANT, IDP, PASSWORD, REVOCATION_URL, TOKEN_URL, basic, grant


def tokens_of(exchange: Exchange, body: object, headers: Mapping[str, str] | None = None) -> Tokens:
    found = outcome(exchange, answer(200, body, headers))
    assert isinstance(found, Issued), found
    return found.tokens


def test_the_password_grant_sends_user_and_password() -> None:
    request = sent(IDP.issue(grant("password")))
    assert request.form == {"grant_type": "password", "username": "user-1", "password": PASSWORD}


def test_scope_audience_and_resource_are_asked_for_where_they_are_set() -> None:
    wanted = grant(scope=["read", "write"], audience="https://api.example", resource="https://api.example/r")
    assert sent(IDP.issue(wanted)).form == {
        "grant_type": "client_credentials",
        "scope": "read write",
        "audience": "https://api.example",
        "resource": "https://api.example/r",
    }


def test_a_renewal_sends_the_refresh_token_and_spends_it() -> None:
    request = sent(IDP.renew(grant(scope=["read"])))
    assert request.line == f"POST {TOKEN_URL}"
    assert request.form == {"grant_type": "refresh_token", "refresh_token": "refresh-1"}
    assert basic(request.request) == ("client-1", "secret-of-client-1")
    assert request.request.sends_stored


@pytest.mark.parametrize(("kind", "value"), [("access_token", "access-1"), ("refresh_token", "refresh-1")])
def test_a_revocation_names_the_token_and_its_kind(kind: str, value: str) -> None:
    request = sent(revoking(kind))
    assert request.line == f"POST {REVOCATION_URL}"
    assert request.form == {"token": value, "token_type_hint": kind}
    assert basic(request.request) == ("client-1", "secret-of-client-1")


def revoking(kind: str = "refresh_token") -> Exchange:
    doomed = (
        PendingRevocation(refresh_token=GRANT.refresh_token)
        if kind == "refresh_token"
        else PendingRevocation(GRANT.access_token)
    )
    exchange = IDP.revoke(GRANT, doomed)
    assert exchange is not None
    return exchange


def test_without_a_revocation_url_there_is_nobody_to_tell() -> None:
    assert OAuth2(TOKEN_URL).revoke(GRANT, PendingRevocation(refresh_token=GRANT.refresh_token)) is None


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "none"])
def test_every_secret_that_is_sent_is_named_for_masking(auth: str) -> None:
    for exchange in (IDP.issue(grant("password", auth)), IDP.renew(grant("password", auth))):
        secrets = {each.reveal() for each in sent(exchange).request.secrets}
        assert {PASSWORD, "refresh-1"} <= secrets
        assert ("secret-of-client-1" in secrets) is (auth != "none")


# What an error means: the code counts, not the status
KILLS, MENDS, WAITS, FOREIGN = "rejected", "misconfigured", "failed", "strange"

CODES: dict[str, tuple[str, str, str]] = {  # code → what it means for an issue, a renewal, a revocation
    "invalid_request": (MENDS, MENDS, MENDS),
    "invalid_client": (MENDS, MENDS, MENDS),
    "invalid_grant": (MENDS, KILLS, "done"),
    "unauthorized_client": (MENDS, MENDS, MENDS),
    "unsupported_grant_type": (MENDS, MENDS, MENDS),
    "invalid_scope": (MENDS, MENDS, MENDS),
    "invalid_target": (MENDS, MENDS, MENDS),
    "access_denied": (MENDS, MENDS, MENDS),
    "unsupported_token_type": (MENDS, MENDS, "unsupported"),
    "temporarily_unavailable": (WAITS, WAITS, WAITS),
    "server_error": (WAITS, WAITS, WAITS),
    "slow_down": (WAITS, WAITS, WAITS),
    "something_of_its_own": (FOREIGN, FOREIGN, FOREIGN),
    "Not Found": (FOREIGN, FOREIGN, FOREIGN),
}

OPERATIONS: tuple[Callable[[], Exchange], ...] = (lambda: IDP.issue(GRANT), lambda: IDP.renew(GRANT), revoking)


def refusal(code: object, status: int = 400, **more: object) -> Response:
    return answer(status, {"error": code, "error_description": "it says why", "error_uri": "https://x", **more})


@pytest.mark.parametrize("operation", [0, 1, 2], ids=["issue", "renew", "revoke"])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", [400, 401])
def test_an_error_code_means_the_same_with_both_statuses_of_the_protocol(
    code: str, operation: int, status: int
) -> None:
    found = outcome(OPERATIONS[operation](), refusal(code, status))
    assert meaning(found) == CODES[code][operation]
    if CODES[code][operation] == FOREIGN:
        assert f"it says why: {code}" in words(found)
    elif meaning(found) != "done":
        assert f"answered {status} {code}: it says why" in words(found)


@pytest.mark.parametrize("operation", [0, 1, 2], ids=["issue", "renew", "revoke"])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", [403, 404, 405, 410, 422, 451])
def test_a_code_with_a_status_that_the_protocol_has_not_is_an_outage(code: str, operation: int, status: int) -> None:
    """A gateway's, as likely as not. One server's 403 is known (refusals.py)."""
    found = outcome(OPERATIONS[operation](), refusal(code, status))
    known = code == "invalid_grant" and operation == 1 and status == 403
    assert meaning(found) == (KILLS if known else FOREIGN)
    assert "it says why" in words(found)


@pytest.mark.parametrize("code", [code for code in CODES if CODES[code][1] != "done"])
@pytest.mark.parametrize("operation", [0, 1], ids=["issue", "renew"])
def test_an_error_with_status_200_is_an_error(code: str, operation: int) -> None:
    means = CODES[code][operation]
    found = meaning(outcome(OPERATIONS[operation](), refusal(code, 200)))
    assert found == ("unreadable" if means == FOREIGN else means)


def test_an_error_beside_a_token_does_not_lose_the_token() -> None:
    heard = {"access_token": "access-2", "refresh_token": "refresh-2", "error": None, "error_description": ""}
    assert tokens_of(IDP.renew(GRANT), heard).refresh_token is not None


def test_a_revocation_that_is_answered_with_200_and_an_error_has_not_been_heard() -> None:
    assert meaning(outcome(revoking(), refusal("invalid_client", 200))) == "misconfigured"


@pytest.mark.parametrize("code", [5, True, None, [], {}, ["invalid_grant"], ""])
def test_an_error_that_is_no_code_is_not_the_providers(code: object) -> None:
    for operation in OPERATIONS:
        assert meaning(outcome(operation(), refusal(code))) == "strange"


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_never_kills_a_refresh_token(status: int) -> None:
    assert meaning(outcome(IDP.renew(GRANT), refusal("invalid_grant", status))) == "strange"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_invalid_grant_of_a_server_in_trouble_is_not_believed(status: int) -> None:
    assert isinstance(outcome(IDP.renew(GRANT), refusal("invalid_grant", status)), RetryLater)


def test_slow_down_says_how_long() -> None:
    heard = answer(400, {"error": "slow_down"}, {"retry-after": "9"})
    found = outcome(IDP.issue(GRANT), heard)
    assert isinstance(found, RetryLater)
    assert found.after == 9.0


@pytest.mark.parametrize("answered", [answer(200), answer(200, b" \n"), answer(200, {}), answer(204), answer(202)])
def test_a_revocation_is_done_whether_the_token_was_known_or_not(answered: Response) -> None:
    assert meaning(outcome(revoking(), answered)) == "done"


@pytest.mark.parametrize(
    "description",
    [
        f"bad (input was: grant_type=password&username=user-1&password={PASSWORD})",
        "bad refresh-1 of client secret-of-client-1",
        "pä ss&word=+/%41\"'",
    ],
)
@pytest.mark.parametrize("code", ["invalid_grant", "temporarily_unavailable", "invalid_request"])
def test_an_echoed_request_shows_no_secret(code: str, description: str) -> None:
    for exchange in (IDP.issue(grant("password")), IDP.renew(grant("password"))):
        found = words(outcome(exchange, answer(400, {"error": code, "error_description": description})))
        assert code in found
        for secret in (PASSWORD, "refresh-1", "secret-of-client-1"):
            assert secret not in found


def test_an_error_code_that_is_a_secret_is_masked_too() -> None:
    found = words(outcome(IDP.renew(GRANT), answer(400, {"error": "refresh-1 is dead"})))
    assert "refresh-1" not in found


@pytest.mark.parametrize("client_id", ["ci", "cid", "cli1"])
def test_an_echoed_authorization_header_shows_no_secret(client_id: str) -> None:
    """Base64 of id and secret joined is not that of the secret alone, unless the id has just the right length."""
    short = grant(client_id=client_id, secret="hunter2")
    header = dict(sent(IDP.issue(short)).request.headers)["Authorization"]
    found = words(outcome(IDP.issue(short), answer(401, {"error": "invalid_client", "error_description": header})))
    assert header.removeprefix("Basic ").rstrip("=") not in found


def test_an_echoed_form_shows_no_secret() -> None:
    for start in (lambda: IDP.issue(grant("password", "client_secret_post")), lambda: IDP.renew(GRANT), revoking):
        body = sent(start()).request.body.decode()
        found = words(outcome(start(), refusal("invalid_request", error_description=body)))
        for secret in ("p%C3%A4+ss", "refresh-1", "secret-of-client-1"):
            assert secret not in found


# What comes
@pytest.mark.parametrize(
    ("value", "lifetime"),
    [
        (3_600, 3_600.0),
        ("3600", 3_600.0),
        (" 3600 ", 3_600.0),
        (3_599.5, 3_599.5),
        (0, 0.0),
        ("0", 0.0),
        (-1, -1.0),
        (10**11, None),
        (1e308, None),
        ("1e999", None),
        (None, None),
        ("", None),
        ("PT1H", None),
        (True, None),
        ([3_600], None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("operation", [0, 1], ids=["issue", "renew"])
def test_expires_in_is_read_as_servers_write_it(operation: int, value: object, lifetime: float | None) -> None:
    found = tokens_of(OPERATIONS[operation](), {"access_token": "a", "token_type": "Bearer", "expires_in": value})
    assert found.access_token is not None
    assert found.access_token.lifetime == lifetime


def test_without_expires_in_a_jwt_names_its_own_lifetime() -> None:
    found = tokens_of(IDP.issue(GRANT), {"access_token": jwt_of(lifetime=600.0), "token_type": "Bearer"})
    assert found.access_token is not None
    assert found.access_token.lifetime == pytest.approx(600, abs=1.5)


def test_expires_in_counts_more_than_what_a_jwt_says() -> None:
    found = tokens_of(IDP.issue(GRANT), {"access_token": jwt_of(lifetime=600.0), "expires_in": 60})
    assert found.access_token is not None
    assert found.access_token.lifetime == 60


@pytest.mark.parametrize("written", ["Bearer", "bearer", "BEARER", "DPoP"])
def test_the_token_type_is_kept_as_it_is_written(written: str) -> None:
    assert tokens_of(IDP.issue(GRANT), {"access_token": "a", "token_type": written}).token_type == written


def test_without_a_token_type_it_is_bearer() -> None:
    assert tokens_of(IDP.issue(GRANT), {"access_token": "a"}).token_type == "Bearer"


@pytest.mark.parametrize("absent", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_an_answer_without_a_refresh_token_says_nothing_of_the_old_one(absent: dict[str, object]) -> None:
    assert tokens_of(IDP.renew(GRANT), {"access_token": "a", **absent}).refresh_token is None


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ({}, None),
        ({"refresh_expires_in": 1_800}, 1_800.0),
        ({"refresh_token_expires_in": 1_800}, 1_800.0),
        ({"refresh_token_expires_in": "1800"}, 1_800.0),
        ({"refresh_expires_in": 0}, None),  # Keycloak's way of writing "never"
    ],
)
def test_a_refresh_tokens_lifetime_is_read_where_servers_tell_it(fields: object, lifetime: float | None) -> None:
    assert isinstance(fields, dict)
    found = tokens_of(IDP.renew(GRANT), {"access_token": "a", "refresh_token": "refresh-2", **fields})
    assert found.refresh_token is not None
    assert found.refresh_token.value == Secret("refresh-2")
    assert found.refresh_token.lifetime == lifetime


@pytest.mark.parametrize(
    ("written", "scope"),
    [("read write", ("read", "write")), ("", ()), (None, None), (["read"], ("read",)), (5, None)],
)
def test_the_scope_is_what_the_provider_says_it_granted(written: object, scope: tuple[str, ...] | None) -> None:
    assert tokens_of(IDP.issue(GRANT), {"access_token": "a", "scope": written}).scope == scope


@pytest.mark.parametrize("status", [200, 201, 203])
def test_tokens_are_taken_from_every_2xx(status: int) -> None:
    assert meaning(outcome(IDP.issue(GRANT), answer(status, {"access_token": "a"}))) == "issued"


@pytest.mark.parametrize("skew", [-90.0, 90.0])
def test_expires_in_needs_no_clock(skew: float) -> None:
    headers = {"date": http_date(NOW.wall + skew)}
    found = tokens_of(IDP.issue(GRANT), {"access_token": jwt_of(NOW.wall + skew), "expires_in": 3_600}, headers)
    assert found.access_token is not None
    assert found.access_token.lifetime == 3_600


# What a configuration may say
@pytest.mark.parametrize(
    ("credentials", "settings", "message"),
    [
        (
            {"client_id", "client_secret"},
            {},
            f"grant_type: expected one of {', '.join(GRANT_TYPES)}, found nothing",
        ),
        (
            {"client_id", "client_secret"},
            {"grant_type": "implicit"},
            f'grant_type: expected one of {", ".join(GRANT_TYPES)}, found "implicit"',
        ),
        (
            {"client_id", "client_secret"},
            {"grant_type": "client_credentials", "client_auth": "basic"},
            f'client_auth: expected auto, or one of {", ".join(METHODS)}, found "basic"',
        ),
        (
            {"client_id"},
            {"grant_type": "client_credentials", "client_auth": "client_secret_basic"},
            "credentials.client_secret: required for client_credentials with client_secret_basic, and missing",
        ),
        (
            {"client_id"},
            {"grant_type": "client_credentials", "client_auth": "none"},
            "client_auth: client_credentials needs a client that authenticates (RFC 6749 §4.4); add its secret or key",
        ),
        (
            {"client_id", "client_secret", "password"},
            {"grant_type": "password", "client_auth": "client_secret_post"},
            "credentials.username: required for password with client_secret_post, and missing",
        ),
        (
            {"client_id", "client_secret", "api_key"},
            {"grant_type": "client_credentials", "client_auth": "client_secret_post"},
            "credentials.api_key: remove it: client_credentials with client_secret_post does not use it; "
            "used: client_id, client_secret",
        ),
    ],
)
def test_a_grant_that_could_never_work_is_refused(
    credentials: set[str], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        IDP.check(frozenset(credentials), settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("credentials", "grant_type", "client_auth"),
    [
        ({"client_id", "client_secret"}, "client_credentials", "client_secret_basic"),
        ({"client_id", "client_secret"}, "refresh_token", "client_secret_post"),
        ({"client_id"}, "refresh_token", "none"),
        ({"client_id", "username", "password"}, "password", "none"),
    ],
)
def test_a_grant_that_can_work_is_taken(credentials: set[str], grant_type: str, client_auth: str) -> None:
    IDP.check(frozenset(credentials), {"grant_type": grant_type, "client_auth": client_auth})


# What it can do, and what a record is bound to
@pytest.mark.parametrize(
    ("grant_type", "ability"),
    [
        ("client_credentials", Ability(issue=True, renew=True, renew_sends_stored=True)),
        ("password", Ability(issue=True, renew=True, renew_sends_stored=True)),
        ("refresh_token", Ability(issue=False, renew=True, renew_sends_stored=True)),
    ],
)
def test_only_a_grant_by_refresh_token_cannot_issue(grant_type: str, ability: Ability) -> None:
    assert IDP.ability(grant(grant_type)) == ability


@pytest.mark.parametrize(
    "other",
    [
        OAuth2("https://idp.other/oauth/token", "https://idp.other/oauth/revoke"),
        OAuth2("http://idp.example/oauth/token", "http://idp.example/oauth/revoke"),
        OAuth2("https://idp.example:8443/oauth/token", REVOCATION_URL),
        OAuth2(TOKEN_URL, "https://elsewhere.example/revoke"),
    ],
)
def test_another_origin_is_another_identity(other: OAuth2) -> None:
    assert other.identity(GRANT) != IDP.identity(GRANT)


@pytest.mark.parametrize(
    "other",
    [grant(client_id="client-2"), grant("refresh_token"), grant("password")],
)
def test_another_client_or_grant_type_is_another_identity(other: GrantView) -> None:
    assert IDP.identity(other) != IDP.identity(GRANT)


def test_another_user_is_another_identity() -> None:
    one = grant("password")
    other = GrantView({**one.credentials, "username": Secret("user-2")}, one.settings)
    assert IDP.identity(other) != IDP.identity(one)


@pytest.mark.parametrize(
    "same",
    [grant(secret="other"), grant(client_auth="client_secret_post"), grant(scope=["write"])],
)
def test_another_secret_or_scope_is_the_same_identity(same: GrantView) -> None:
    assert IDP.identity(same) == IDP.identity(GRANT)


def test_no_secret_is_in_an_identity() -> None:
    shown = repr(IDP.identity(grant("password")))
    assert "secret-of-client-1" not in shown
    assert PASSWORD not in shown


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_form_carries_any_refresh_token_and_nothing_more(value: str) -> None:
    seen = view({"client_id": "c"}, {"grant_type": "refresh_token", "client_auth": "none"}, refresh=value)
    request = begin(IDP.renew(seen))
    assert isinstance(request, Request)
    assert request.url == TOKEN_URL
    assert sent(IDP.renew(seen)).form == {"grant_type": "refresh_token", "refresh_token": value, "client_id": "c"}
