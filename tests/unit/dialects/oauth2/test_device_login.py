# The device's way to log in (RFC 8628): what is asked, how often, and what every answer means; and the password that is
# asked for.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Issued
from brokerd.core.exchange.steps import Ask, Response, Unanswered
from brokerd.core.grant.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import answer, html, meaning, words
from tests.unit.dialects.oauth2.login_driver import BEGUN, IDP, PENDING, SERVER, TOKENS, Driven, Heard, form, grant


def device(*heard: Heard, begun: object = BEGUN) -> Driven:
    return Driven(SERVER.login(grant("device_code")), answer(200, begun), *heard)


def test_a_person_is_shown_the_code_and_the_server_is_asked_until_it_answers() -> None:
    login = device(PENDING, PENDING, answer(200, TOKENS))
    begin, *polls = login.requests
    assert (begin.url, form(begin)) == (f"{IDP}/device_authorization", {"client_id": "client-1", "scope": "openid"})
    shown = {name: value for name, value in BEGUN.items() if name not in ("device_code", "interval")}
    assert login.asked == [Ask("device", shown, waits=False)]  # type: ignore[arg-type]
    assert [form(each) for each in polls] == 3 * [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": "test-only-device-code",
            "client_id": "client-1",
        }
    ]
    assert all(each.sends_stored for each in polls), "what a poll brings must not be lost"
    assert login.waits == [2, 2, 2]
    assert isinstance(login.outcome, Issued)


def test_a_client_with_a_secret_names_itself_where_a_device_login_begins() -> None:
    seen = replace(
        grant("device_code"), settings={**grant("device_code").settings, "client_auth": "client_secret_basic"}
    )
    seen = replace(seen, credentials={**seen.credentials, "client_secret": Secret("secret-1")})
    begin = Driven(SERVER.login(seen), answer(200, BEGUN)).requests[0]
    assert form(begin) == {"client_id": "client-1", "scope": "openid"}
    assert dict(begin.headers)["Authorization"].startswith("Basic ")


def test_without_an_interval_it_is_five_seconds_and_without_a_complete_address_there_is_none() -> None:
    short = {name: value for name, value in BEGUN.items() if name not in ("interval", "verification_uri_complete")}
    login = device(PENDING, answer(200, TOKENS), begun=short)
    assert login.waits == [5, 5]
    assert "verification_uri_complete" not in login.asked[0].shown


def test_slow_down_adds_five_seconds_for_good() -> None:
    slow = answer(400, {"error": "slow_down"})
    assert device(slow, PENDING, slow, PENDING, answer(200, TOKENS)).waits == [2, 7, 7, 12, 12]


def test_a_server_that_does_not_answer_is_asked_more_and_more_seldom() -> None:
    lost, busy = Unanswered("timed out"), answer(503, b"", {"retry-after": "9"})
    login = device(lost, lost, busy, PENDING, answer(200, TOKENS))
    assert login.waits == [2, 4, 8, 16, 16]
    assert isinstance(login.outcome, Issued)


@pytest.mark.parametrize("status", [200, 400, 403, 428])
def test_a_pending_answer_goes_on_whatever_its_status(status: int) -> None:
    login = device(answer(status, {"error": "authorization_pending"}), answer(200, TOKENS))
    assert isinstance(login.outcome, Issued)


def test_a_code_that_nobody_confirms_is_given_up_with_its_life() -> None:
    login = device(*30 * [PENDING])
    assert (sum(login.waits), meaning(login.outcome)) == (60, "postponed")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("last", "meant", "said"),
    [
        (answer(400, {"error": "access_denied"}), "rejected", "access_denied"),
        (answer(400, {"error": "expired_token"}), "failed", "expired_token"),
        (answer(400, {"error": "invalid_grant", "error_description": "test-only-device-code"}), "rejected", "***"),
        (answer(401, {"error": "invalid_client"}), "misconfigured", "invalid_client"),
        (answer(200, b'{"access_token": "test-only'), "unreadable", "not in the provider's format"),
        (html(200), "unreadable", "not in the provider's format"),
    ],
)
def test_any_other_answer_ends_the_login_and_the_code_is_not_sent_again(last: Response, meant: str, said: str) -> None:
    login = device(PENDING, last)
    assert login.outcome is not None
    assert (meaning(login.outcome), said in words(login.outcome)) == (meant, True)
    assert "test-only-device-code" not in words(login.outcome)


@pytest.mark.parametrize(
    "change",
    [
        {"verification_uri": "http://idp.example/device"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": f"{IDP}/\x1b[2J"},
        {"verification_uri": None},
        {"user_code": "AB\x1b[2J"},
        {"user_code": "A" * 65},
        {"device_code": "a\r\nb"},
        {"expires_in": None},
        {"expires_in": 0},
    ],
)
def test_nothing_is_shown_to_a_person_that_is_not_fit_for_it(change: dict[str, object]) -> None:
    login = device(begun={**BEGUN, **change})
    assert (login.asked, meaning(login.outcome)) == ([], "unreadable")  # type: ignore[arg-type]


def test_an_unfit_complete_address_is_left_out() -> None:
    assert "verification_uri_complete" not in device(begun={**BEGUN, "verification_uri_complete": "x:y"}).asked[0].shown


def test_a_server_without_a_device_endpoint_says_what_is_missing() -> None:
    login = Driven(OAuth2(f"{IDP}/token").login(grant("device_code")))
    assert login.outcome is not None
    assert "write device_authorization_url" in words(login.outcome)


# The password that is asked for (RFC 6749 §4.3)


def test_a_password_is_asked_for_sent_once_and_named_nowhere() -> None:
    login = Driven(
        SERVER.login(grant("password")),
        {"password": "test-only-password"},
        answer(400, {"error": "invalid_grant", "error_description": "no: test-only-password"}),
    )
    assert login.asked == [Ask("password", {"username": "user-1"})]
    assert [form(each) for each in login.requests] == [
        {
            "grant_type": "password",
            "username": "user-1",
            "password": "test-only-password",
            "scope": "openid",
            "client_id": "client-1",
        }
    ]
    assert login.outcome is not None
    assert (meaning(login.outcome), "test-only-password" in words(login.outcome)) == ("rejected", False)


def test_an_empty_password_is_not_sent() -> None:
    login = Driven(SERVER.login(grant("password")), {"password": ""})
    assert (login.requests, meaning(login.outcome)) == ([], "rejected")  # type: ignore[arg-type]


def test_a_grant_issues_by_itself_only_where_its_password_is_configured() -> None:
    alone = grant("password")
    configured = replace(alone, credentials={**alone.credentials, "password": Secret("test-only-password")})
    assert SERVER.ability(alone) == Ability(issue=False, renew=True, renew_sends_stored=True, login=True)
    assert SERVER.ability(configured) == Ability(issue=True, renew=True, renew_sends_stored=True)
    SERVER.check(frozenset(alone.credentials), alone.settings)
    SERVER.check(frozenset(configured.credentials), configured.settings)
