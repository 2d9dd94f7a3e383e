# An answer that is not the provider's (a captive portal, a proxy, a gateway) ends no grant and brings no token, in
# every dialect and operation (law 12).
from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from brokerd.core.exchange.outcomes import Issued, RetryLater
from brokerd.core.exchange.steps import Exchange, Request
from brokerd.core.grant.record import PendingRevocation
from brokerd.dialects.dialect import Dialect, GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import (
    FOREIGN,
    NOW,
    UNFIT,
    answer,
    begin,
    drive,
    html,
    http_date,
    meaning,
    meant,
    outcome,
    recipe,
    view,
    words,
)

TWO = {"access": "living-access-token", "refresh": "living-refresh-token"}
IDS = {"access_id": "tok-a", "refresh_id": "tok-r"}
OAUTH2_SETTINGS = {"grant_type": "client_credentials", "client_auth": "client_secret_basic"}

DIALECTS: dict[str, tuple[Dialect, GrantView]] = {
    "ix-api": (recipe("ix-api"), view({"api_key": "key-1", "api_secret": "secret-1"}, **TWO)),
    "occam": (recipe("occam"), view({"username": "user-1", "password": "password-1"}, **TWO)),
    "occam by key": (recipe("occam"), view({"key": "key-1"})),
    "treezor": (recipe("treezor"), view({"client_id": "client-1", "client_secret": "secret-1"}, **TWO)),
    "click2mail": (recipe("click2mail"), view({"client_id": "client-1", "client_secret": "secret-1"}, **TWO, **IDS)),
    "oauth2": (
        OAuth2("https://idp.example/token", "https://idp.example/revoke"),
        view({"client_id": "client-1", "client_secret": "secret-1"}, OAUTH2_SETTINGS, **TWO),
    ),
}
Start = Callable[[], Exchange]


def exchanges() -> dict[str, Start]:
    """Every operation for tokens of every dialect."""
    found: dict[str, Start] = {}
    for name, (dialect, seen) in DIALECTS.items():
        found[f"{name}: issue"] = lambda dialect=dialect, seen=seen: dialect.issue(seen)  # type: ignore[misc]
        if seen.refresh_token is not None:
            found[f"{name}: renew"] = lambda dialect=dialect, seen=seen: dialect.renew(seen)  # type: ignore[misc]
    return found


def revocations() -> dict[str, Start]:
    found: dict[str, Start] = {}
    for name, (dialect, seen) in DIALECTS.items():
        doomed = (
            PendingRevocation(access_token=seen.access_token),
            PendingRevocation(refresh_token=seen.refresh_token),
        )
        for token in doomed if seen.refresh_token else ():
            kind = "access token" if token.access_token else "refresh token"
            if dialect.revoke(seen, token) is not None:
                found[f"{name}: revoke {kind}"] = lambda d=dialect, s=seen, t=token: d.revoke(s, t)  # type: ignore[misc]
    return found


EXCHANGES, REVOCATIONS = exchanges(), revocations()
# To be told anything with a 2xx is enough for a revocation, as long as it is no portal's page.
FOR_REVOCATION = [name for name, (heard, _) in FOREIGN.items() if heard.status >= 300] + ["a captive portal's 200"]


def test_these_tests_meet_every_operation() -> None:
    assert len(EXCHANGES) == 11
    assert sorted(REVOCATIONS) == [
        "click2mail: revoke access token",
        "click2mail: revoke refresh token",
        "oauth2: revoke access token",
        "oauth2: revoke refresh token",
    ]


@pytest.mark.parametrize("operation", EXCHANGES)
def test_what_is_not_the_providers_is_tried_again_later(operation: str) -> None:
    found = {name: outcome(EXCHANGES[operation](), heard) for name, (heard, _) in FOREIGN.items()}
    request = begin(EXCHANGES[operation]())
    assert isinstance(request, Request)
    assert {name: meaning(each) for name, each in found.items()} == {name: meant(name, request) for name in FOREIGN}
    for name, each in found.items():
        assert isinstance(each, RetryLater), name
        assert str(FOREIGN[name][0].status) in each.reason


def test_a_number_is_not_a_token() -> None:
    heard = answer(200, {"access_token": 17, "refresh_token": 18})
    found = {operation: meaning(outcome(start(), heard)) for operation, start in EXCHANGES.items()}
    assert found == dict.fromkeys(EXCHANGES, "unreadable")


@pytest.mark.parametrize("operation", REVOCATIONS)
def test_a_revocation_that_the_provider_has_not_heard_is_told_again(operation: str) -> None:
    found = {name: meaning(outcome(REVOCATIONS[operation](), FOREIGN[name][0])) for name in FOR_REVOCATION}
    assert found == {name: FOREIGN[name][1] for name in FOR_REVOCATION}


@pytest.mark.parametrize("operation", EXCHANGES)
def test_nothing_of_a_foreign_body_is_shown(operation: str) -> None:
    assert "leaked" not in words(outcome(EXCHANGES[operation](), html(403, b"<p>leaked</p>")))
    assert "leaked" not in words(outcome(EXCHANGES[operation](), answer(200, b'{"note": "leaked"')))


@pytest.mark.parametrize("operation", ["occam: renew", "oauth2: renew"])
def test_a_header_of_a_foreign_answer_shows_no_secret_either(operation: str) -> None:
    echoed = html(403, headers={"content-type": "text/living-refresh-token; charset=utf-8"})
    assert "living-refresh-token" not in words(outcome(EXCHANGES[operation](), echoed))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        (http_date(NOW.wall + 90), 90.0),
        (http_date(NOW.wall - 90), 0.0),
        ("-5", 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("1e999", None),
        ("Mon, 99 Foo 2026 25:61:61 GMT", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("operation", ["occam: renew", "oauth2: renew"])
def test_retry_after_is_understood_in_both_forms(
    operation: str, status: int, value: str | None, seconds: float | None
) -> None:
    headers = {"date": http_date(NOW.wall)} | ({} if value is None else {"retry-after": value})
    found = outcome(EXCHANGES[operation](), answer(status, b"", headers))
    assert isinstance(found, RetryLater)
    assert found.after == seconds


@pytest.mark.parametrize("skew", [-90.0, 0.0, 90.0])
def test_a_date_in_retry_after_is_counted_on_the_clock_of_the_provider(skew: float) -> None:
    clock = NOW.wall + skew
    headers = {"date": http_date(clock), "retry-after": http_date(clock + 30)}
    found = outcome(EXCHANGES["oauth2: issue"](), answer(429, b"", headers))
    assert isinstance(found, RetryLater)
    assert found.after == 30.0


@pytest.mark.parametrize("operation", EXCHANGES)
def test_a_token_that_no_header_can_carry_is_not_a_token(operation: str) -> None:
    for unfit in UNFIT.values():
        heard = answer(200, {"access_token": unfit, "refresh_token": "good"})
        found = outcome(EXCHANGES[operation](), heard)
        assert meaning(found) == "unreadable"


@pytest.mark.parametrize("operation", ["occam: renew", "oauth2: renew"])
def test_a_new_refresh_token_that_cannot_be_read_is_not_taken_for_none(operation: str) -> None:
    """It has replaced the old one, which must not be sent again as if the answer had brought no new one (law 3)."""
    unfit = (*UNFIT.values(), 18, {}, ["r"], True)
    found = [
        outcome(EXCHANGES[operation](), answer(200, {"access_token": "a", "refresh_token": each})) for each in unfit
    ]
    assert [meaning(each) for each in found] == ["unreadable"] * len(unfit)


@pytest.mark.parametrize("operation", EXCHANGES)
def test_a_token_has_at_most_256_kib(operation: str) -> None:
    for length, means in ((256 * 1024, "issued"), (256 * 1024 + 1, "unreadable")):
        assert meaning(outcome(EXCHANGES[operation](), answer(200, {"access_token": "x" * length}))) == means


@pytest.mark.parametrize("field", ["refresh_token", "token_type", "scope", "scopes", "token_id"])
@pytest.mark.parametrize("operation", EXCHANGES)
def test_text_that_cannot_be_written_is_not_taken_into_a_record(operation: str, field: str) -> None:
    """A lone surrogate, as JSON can say it, has no UTF-8: the store could not write the record."""
    heard = answer(200, {"access_token": "good", "refresh_token": "good", field: UNFIT["half a character"]})
    found = outcome(EXCHANGES[operation](), heard)
    if isinstance(found, Issued):
        msgspec.msgpack.encode(found.tokens, enc_hook=lambda secret: secret.reveal())


@pytest.mark.parametrize("operation", [*EXCHANGES, *REVOCATIONS])
def test_an_exchange_asks_once_and_names_every_secret_that_it_sends(operation: str) -> None:
    start = {**EXCHANGES, **REVOCATIONS}[operation]
    requests, _ = drive(start(), answer(503))
    assert len(requests) == 1
    (request,) = requests
    text = request.url + repr(request.headers) + request.body.decode()
    for secret in ("password-1", "secret-1", "key-1", "living-refresh-token", "living-access-token"):
        assert secret not in text or secret in {each.reveal() for each in request.secrets}
        assert secret not in repr(request)
