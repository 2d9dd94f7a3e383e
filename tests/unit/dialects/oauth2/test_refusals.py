# Refusals as real servers write them: a dead refresh token in every form of the table, whose fault a refusal is, and
# what is shown where nothing is known.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Blame, Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.steps import Request
from brokerd.core.secret import Secret, SecretSource
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.refusals import CODES, DEAD
from tests.unit.dialects.exchange_driver import answer, html, meaning, outcome, recipe, view, words

IDP = OAuth2("https://idp.example/token", "https://idp.example/revoke")
REFRESH = view({"client_id": "c"}, {"grant_type": "refresh_token", "client_auth": "none"}, refresh="test-only-R0")
BY_PASSWORD = view(
    {"client_id": "c", "username": "u", "password": "test-only-pw"},
    {"grant_type": "password", "client_auth": "none"},
    refresh="test-only-R0",
)

DEAD_FORMS: dict[str, tuple[int, object]] = {
    "RFC 6749": (400, {"error": "invalid_grant"}),
    "GitHub": (200, {"error": "bad_refresh_token", "error_description": "The refresh token passed is incorrect"}),
    "GitHub with 400": (400, {"error": "bad_refresh_token"}),
    "GitHub without Accept": (200, b"error=bad_refresh_token&error_description=The+refresh+token+is+incorrect"),
    "Slack": (200, {"ok": False, "error": "invalid_refresh_token"}),
    "invalid_refresh_token with 400": (400, {"error": "invalid_refresh_token"}),
    "Spring": (401, {"error": "invalid_token", "error_description": "Invalid refresh token (expired): ***"}),
    "Entra": (400, {"error": "interaction_required", "error_description": "AADSTS50076: use multi-factor"}),
    "capitals": (400, {"error": "INVALID_GRANT"}),
    "a description in the code": (400, {"error": "invalid_grant: Token is expired"}),
    "thephpleague": (400, {"error": "invalid_request", "message": "The refresh token is invalid.", "hint": "Expired"}),
    "thephpleague with 401": (401, {"error": "invalid_request", "error_description": "The refresh token is invalid."}),
    "authlib": (400, {"error": "invalid_request", "error_description": 'Invalid "refresh_token" in request.'}),
    "expired": (400, {"error": "invalid_request", "error_description": "Refresh token has been revoked or expired"}),
    "Fitbit": (400, {"errors": [{"errorType": "invalid_grant", "message": "Refresh token invalid"}], "success": False}),
    "nested": (400, {"error": {"code": "invalid_grant", "message": "no"}}),
    "nested with 200": (200, {"error": {"code": "invalid_grant"}}),
    "a token that is null": (200, {"access_token": None, "error": "invalid_grant"}),
    "a token that is null with 400": (400, {"access_token": None, "refresh_token": None, "error": "invalid_grant"}),
    "Auth0": (403, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}),
}
ALIVE_FORMS: dict[str, tuple[int, object]] = {
    "a request with a field too few": (400, {"error": "invalid_request", "error_description": "Missing refresh_token"}),
    "another thing is invalid": (
        400,
        {"error": "invalid_request", "error_description": "The refresh token request has an invalid redirect_uri"},
    ),
    "no description": (400, {"error": "invalid_request"}),
    "the client": (401, {"error": "invalid_client", "error_description": "The refresh token is invalid."}),
    "a gateway's 404": (404, {"status": 404, "error": "Not Found"}),
    "a gateway's 403": (403, {"error": "Forbidden", "message": "The refresh token is invalid"}),
    "a gateway's 401": (401, {"error": "Unauthorized"}),
    "a rate limit": (403, {"error": "rate_limited"}),
    "an invalid_token that no token endpoint sends": (403, {"error": "invalid_token"}),
    "an array": (400, [{"error": "invalid_grant"}]),
    "a page": (400, b'<p>{"error": "invalid_grant"}'),
    "text": (400, b"invalid_grant"),
    "a list of codes": (400, {"error": ["invalid_grant"]}),
}


@pytest.mark.parametrize("form", DEAD_FORMS)
def test_a_refresh_token_that_is_dead_in_other_words_is_dead(form: str) -> None:
    status, body = DEAD_FORMS[form]
    assert meaning(outcome(IDP.renew(REFRESH), answer(status, body))) == "rejected"


def test_oktas_own_form_of_a_refusal_is_read() -> None:
    said = {"errorCode": "invalid_client", "errorSummary": "A client_id must be provided.", "errorCauses": []}
    for exchange in (IDP.renew(REFRESH), IDP.issue(BY_PASSWORD)):
        found = of(outcome(exchange, answer(401, said)))
        assert found.blames is Blame.CLIENT
        assert "invalid_client: A client_id must be provided." in found.reason
    other = {"errorCode": "E0000011", "errorSummary": "Invalid token provided"}
    assert meaning(outcome(IDP.renew(REFRESH), answer(401, other))) == "strange"


@pytest.mark.parametrize("form", ALIVE_FORMS)
def test_what_does_not_say_that_a_refresh_token_is_dead_kills_none(form: str) -> None:
    status, body = ALIVE_FORMS[form]
    assert meaning(outcome(IDP.renew(REFRESH), answer(status, body))) != "rejected"


def test_every_row_of_the_table_is_met_and_has_its_source() -> None:
    said = str(list(DEAD_FORMS.values())) + "login_required consent_required"
    for row in DEAD:
        assert row.code in said.lower()
        assert row.source


def of(found: Outcome) -> Misconfigured:
    assert isinstance(found, Misconfigured), found
    return found


ASSERTED = view({"assertion": "a.b.c"}, {"grant_type": "jwt_bearer", "client_auth": "none"})
BLAMES = {
    ("invalid_client", "password"): Blame.CLIENT,
    ("unauthorized_client", "password"): Blame.CLIENT,
    ("invalid_grant", "password"): Blame.PASSWORD,
    ("invalid_request", "password"): Blame.PASSWORD,
    ("invalid_scope", "password"): Blame.REQUEST,
    ("unsupported_grant_type", "password"): Blame.REQUEST,
    ("invalid_client", "assertion"): Blame.CLIENT,
    ("invalid_grant", "assertion"): Blame.CLIENT,
    ("invalid_request", "assertion"): Blame.REQUEST,
}


@pytest.mark.parametrize(("code", "sent"), BLAMES)
def test_a_refusal_blames_what_the_provider_refused(code: str, sent: str) -> None:
    assert code in CODES
    view_of = BY_PASSWORD if sent == "password" else ASSERTED
    found = of(outcome(IDP.issue(view_of), answer(400, {"error": code}, {"retry-after": "5"})))
    assert (found.blames, found.after) == (BLAMES[code, sent], 5.0)


def test_a_recipe_blames_what_it_was_asked_with() -> None:
    occam, ix = recipe("occam"), recipe("ix-api")
    wrong = answer(400, {"detail": "Invalid email or password"}, {"retry-after": "5"})
    found = of(outcome(occam.issue(view({"username": "u", "password": "p"})), wrong))
    assert (found.blames, found.after) == (Blame.PASSWORD, 5.0)
    assert of(outcome(occam.issue(view({"key": "k"})), wrong)).blames is Blame.REQUEST
    keys = view({"api_key": "k", "api_secret": "s"})
    assert of(outcome(ix.issue(keys), answer(401, {"title": "Authentication"}))).blames is Blame.CLIENT


@pytest.mark.parametrize("status", [400, 401, 403, 422])
@pytest.mark.parametrize("body", [{"detail": "Incorrect username or password"}, b"", b"<html>", {"error": "no"}, b"{}"])
def test_after_a_password_any_such_refusal_may_be_one_of_the_password(status: int, body: object) -> None:
    found = outcome(IDP.issue(BY_PASSWORD), answer(status, body, {"retry-after": "5"}))
    assert isinstance(found, RetryLater)
    assert (meaning(found), found.after) == ("silent", 5.0)
    assert meaning(outcome(IDP.issue(BY_PASSWORD), answer(404, body))) in ("strange", "silent")
    expected = "silent" if body == b"" else "strange"
    assert meaning(outcome(IDP.renew(BY_PASSWORD), answer(status, body))) == expected


def test_a_request_says_whether_a_password_is_in_it() -> None:
    exchanges = {
        IDP.issue(BY_PASSWORD): True,
        IDP.renew(BY_PASSWORD): False,
        recipe("occam").issue(view({"username": "u", "password": "p"})): True,
        recipe("occam").issue(view({"key": "k"})): False,
        recipe("occam").renew(view({"username": "u", "password": "p"}, refresh="r")): False,
    }
    for exchange, carried in exchanges.items():
        request = next(exchange)
        assert isinstance(request, Request)
        assert request.password is carried
        exchange.close()


# -- what the provider said is shown


SAID: dict[str, tuple[int, object, str]] = {
    "FastAPI": (400, {"detail": "Incorrect username or password"}, "Incorrect username or password"),
    "FastAPI's validation": (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
    "problem details": (403, {"title": "Forbidden", "detail": "quota"}, "quota: Forbidden"),
    "a gateway": (404, {"status": 404, "error": "Not Found"}, "Not Found"),
    "Django": (400, {"username": ["This field is required."]}, "This field is required."),
    "text": (400, b"The plain HTTP request was sent to HTTPS port", "The plain HTTP request was sent to HTTPS port"),
    "a page": (400, b"<html><title>400 Bad Request</title>", "400 Bad Request"),
    "an error with 200": (200, {"error": "no such thing", "note": "x"}, "no such thing"),
}


@pytest.mark.parametrize("form", SAID)
def test_what_the_provider_said_is_shown(form: str) -> None:
    status, body, said = SAID[form]
    found = words(outcome(IDP.renew(REFRESH), answer(status, body)))
    assert said in found
    assert "not in the provider's format: " in found


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "bad test-only-R0"},
        {"detail": "new refresh token A1b2C3d4E5f6A1b2C3d4E5f6x9"},
        {"token": "short", "x": {"client_secret": "short"}},
        {"access_token": "short", "detail": ["x" * 100]},
        b"no: A1b2C3d4E5f6A1b2C3d4E5f6x9",
    ],
)
def test_no_secret_is_shown_with_it(body: object) -> None:
    for status in (200, 400, 403):
        found = words(outcome(IDP.renew(REFRESH), answer(status, body)))
        for secret in ("test-only-R0", "A1b2C3d4E5f6A1b2C3d4E5f6x9", "short", "x" * 100):
            assert secret not in found
        assert len(found) < 400


def test_a_redirect_names_its_place() -> None:
    found = words(outcome(IDP.renew(REFRESH), html(308, b"", {"location": "https://login.example/oauth/token"})))
    assert "a redirect to https://login.example/oauth/token" in found


# -- what to check is named


FILE = SecretSource(file="/etc/brokerd/secrets/reports")


def with_client(method: str, secret: SecretSource = FILE) -> GrantView:
    seen = view(
        {"client_id": "c", "client_secret": "test-only-s"}, {"grant_type": "client_credentials", "client_auth": method}
    )
    return replace(seen, sources={"client_id": SecretSource(text=Secret("c")), "client_secret": secret})


@pytest.mark.parametrize(
    ("secret", "place"),
    [
        (FILE, "client_secret (/etc/brokerd/secrets/reports)"),
        (SecretSource(credential="reports"), "client_secret (systemd credential reports)"),
        (SecretSource(env="SECRET"), "client_secret ($SECRET)"),
        (SecretSource(command=("/usr/bin/pass", "show", "x")), "client_secret (printed by /usr/bin/pass)"),
        (SecretSource(text=Secret("test-only-s")), "client_secret and"),
    ],
)
def test_a_refused_client_names_the_source_of_its_secret_and_how_it_was_sent(secret: SecretSource, place: str) -> None:
    for heard in (answer(401, {"error": "invalid_client"}), answer(401), answer(403)):
        found = words(outcome(IDP.issue(with_client("client_secret_basic", secret)), heard))
        assert f"; check client_id, {place}" in found
        assert found.endswith("client_auth (client_secret_basic was used, some servers want client_secret_post)")
        assert "test-only-s" not in found


def test_a_refused_password_names_its_source_and_not_the_client() -> None:
    seen = replace(BY_PASSWORD, sources={"password": SecretSource(file="/etc/brokerd/secrets/pw")})
    found = words(outcome(IDP.issue(seen), answer(400, {"error": "invalid_grant"})))
    assert found.endswith("; check username and password (/etc/brokerd/secrets/pw)")


def test_a_recipe_names_what_it_sent() -> None:
    ix = replace(view({"api_key": "k", "api_secret": "s"}), sources={"api_secret": FILE})
    for heard in (answer(401, {"title": "Authentication"}), answer(403)):
        found = words(outcome(recipe("ix-api").issue(ix), heard))
        assert found.endswith("; check api_key and api_secret (/etc/brokerd/secrets/reports)")


def test_what_is_not_about_the_client_advises_nothing_about_it() -> None:
    for heard in (answer(400, {"error": "invalid_scope"}), answer(404), answer(503), answer(400)):
        assert "check" not in words(outcome(IDP.issue(with_client("client_secret_basic")), heard))


@pytest.mark.parametrize(
    ("status", "said", "shown"),
    [
        (500, {"error": "server_error", "error_description": "no such table: tokens"}, "server_error"),
        (503, {"message": "Down for maintenance until 12:00 UTC"}, ": Down for maintenance until 12:00 UTC"),
        (502, b"<title>502 Bad Gateway</title>", ": 502 Bad Gateway"),
        (500, {"detail": "cannot use test-only-R0"}, ": cannot use ***"),
        (500, {"access_token": "test-only-A1", "refresh_token": "test-only-R1"}, "***"),
        (429, {"error": "too many requests"}, ": too many requests"),
        (503, b"", "answered 503"),
    ],
)
def test_what_a_provider_says_beside_a_failure_of_its_own_is_shown_without_secrets(
    status: int, said: object, shown: str
) -> None:
    kind = html if isinstance(said, bytes) and said else answer
    found = outcome(IDP.renew(REFRESH), kind(status, said))  # type: ignore[operator]
    assert isinstance(found, RetryLater)
    assert f"the provider answered {status}" in found.reason
    assert shown in found.reason
    assert "test-only" not in found.reason
    assert len(found.reason) < 300
