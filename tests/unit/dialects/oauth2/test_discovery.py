# Discovery, answer by answer: what is asked, what is believed, and what needs an operator's word (RFC 8414 §3).
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.server_metadata import Metadata, to_agree
from brokerd.core.exchange.steps import Discover, Discovery, Exchange, Request, Response
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.discovery import learn

NOW = Moment(1_700_000_000.0, 100.0, "boot")
ISSUER = "https://idp.test"
DOCUMENT: dict[str, object] = {
    "issuer": ISSUER,
    "token_endpoint": "https://idp.test/token",
    "revocation_endpoint": "https://tokens.idp.test/revoke",
    "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
    "mtls_endpoint_aliases": {"token_endpoint": "https://mtls.idp.test/token"},
}
OTHERS_PAGE = (200, b"<html>log in to our network</html>")


def heard(status: int, body: object, *, public: bool = False) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, (), content, NOW, NOW, public)


def driven(discovery: Discovery, *answers: Response) -> tuple[list[str], Metadata | Outcome]:
    """The URLs that were asked, and what came of it."""
    asked, left = [], list(answers)
    step = next(discovery)
    while True:
        assert isinstance(step, Request)
        asked.append(step.url)
        try:
            step = discovery.send(left.pop(0))
        except StopIteration as stop:
            return asked, stop.value


def learnt(known: Metadata | None = None, *, public: bool = False, **changed: object) -> Metadata | Outcome:
    return driven(learn(ISSUER, known), heard(200, {**DOCUMENT, **changed}, public=public))[1]


def both(**changed: object) -> Metadata | Outcome:
    """With the same document at both places."""
    document = heard(200, {**DOCUMENT, **changed})
    return driven(learn(ISSUER, None), document, document)[1]


def first(*, public: bool = False) -> Metadata:
    found = learnt(public=public)
    assert isinstance(found, Metadata)
    return found


def test_a_document_is_read() -> None:
    found = first()
    assert found.endpoints["token_endpoint"] == "https://idp.test/token"
    assert found.aliases == {"token_endpoint": "https://mtls.idp.test/token"}
    assert found.auth_methods == ("client_secret_post", "private_key_jwt")
    assert found.origins == ("https://idp.test", "https://mtls.idp.test", "https://tokens.idp.test")
    assert (found.issuer, found.fetched, found.agreed) == (ISSUER, NOW, False)


def test_a_document_that_names_no_methods_means_basic() -> None:
    found = driven(learn(ISSUER, None), heard(200, {"issuer": ISSUER, "token_endpoint": ISSUER + "/t"}))[1]
    assert isinstance(found, Metadata)
    assert found.auth_methods == ("client_secret_basic",)


@pytest.mark.parametrize(
    ("issuer", "places"),
    [
        (ISSUER, ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]),
        (
            f"{ISSUER}/tenant/1",
            [
                "/.well-known/oauth-authorization-server/tenant/1",
                "/tenant/1/.well-known/openid-configuration",
                "/.well-known/openid-configuration/tenant/1",
            ],
        ),
    ],
)
def test_the_document_is_looked_for_where_the_standards_say(issuer: str, places: list[str]) -> None:
    asked, found = driven(learn(issuer, None), *(heard(404, b"not found") for _ in places))
    assert asked == [ISSUER + place for place in places]
    assert isinstance(found, Misconfigured)
    assert found.reason == (
        f"discovery: {' and '.join(f'{issuer_at(each)} answered 404' for each in places)}; check issuer, or write"
        " token_url if the server has no metadata"
    )


def issuer_at(place: str) -> str:
    return ISSUER + place


def test_the_second_place_counts_where_the_first_has_nothing() -> None:
    asked, found = driven(learn(ISSUER, None), heard(404, b""), heard(200, DOCUMENT))
    assert isinstance(found, Metadata)
    assert len(asked) == 2


NO_DOCUMENT = [OTHERS_PAGE, (200, b"{}"), (200, b"[]"), (200, b""), (204, b""), (302, b""), (500, b"x"), (503, b"")]


@pytest.mark.parametrize(("status", "body"), [*NO_DOCUMENT, (404, b""), (401, b""), (407, b"")])
def test_the_next_place_is_asked_where_the_first_has_no_document(status: int, body: bytes) -> None:
    asked, found = driven(learn(ISSUER, None), heard(status, body), heard(200, DOCUMENT))
    assert isinstance(found, Metadata)
    assert len(asked) == 2


@pytest.mark.parametrize(("status", "body"), [*NO_DOCUMENT, (407, b"")])
def test_answers_that_are_no_document_say_nothing(status: int, body: bytes) -> None:
    found = driven(learn(ISSUER, None), heard(status, body), heard(status, body))[1]
    assert isinstance(found, RetryLater)
    assert found.reason.count(f"answered {status}") == 2


def test_an_error_names_every_place_and_what_it_said() -> None:
    moved = replace(heard(302, b""), headers=(("location", "https://idp.test/login"),))
    page = replace(heard(*OTHERS_PAGE), headers=(("content-type", "text/html; charset=utf-8"),))
    found = driven(learn(ISSUER, None), moved, page)[1]
    assert isinstance(found, RetryLater)
    assert found.reason == (
        f"discovery: {ISSUER}/.well-known/oauth-authorization-server answered 302 (Location: https://idp.test/login)"
        f" and {ISSUER}/.well-known/openid-configuration answered 200 with text/html, 34 bytes, which is no metadata"
    )


def test_a_server_that_wants_us_to_wait_is_asked_no_more() -> None:
    limited = replace(heard(429, b""), headers=(("retry-after", "7"),))
    asked, found = driven(learn(ISSUER, None), limited)
    assert isinstance(found, RetryLater)
    assert (len(asked), found.after) == (1, 7.0)


def test_the_time_that_a_server_asks_for_is_kept_where_no_place_has_a_document() -> None:
    busy = replace(heard(503, b""), headers=(("retry-after", "7"),))
    found = driven(learn(ISSUER, None), heard(404, b""), busy)[1]
    assert isinstance(found, RetryLater)
    assert found.after == 7.0


def test_a_document_of_another_issuer_at_the_first_place_stops_nothing() -> None:
    found = driven(learn(ISSUER, None), heard(200, {**DOCUMENT, "issuer": "https://other.test"}), heard(200, DOCUMENT))
    assert isinstance(found[1], Metadata)


def test_a_document_of_another_issuer_is_named_beside_an_outage() -> None:
    other = heard(200, {**DOCUMENT, "issuer": "https://other.test"})
    found = driven(learn(ISSUER, None), other, heard(503, b""))[1]
    assert isinstance(found, Misconfigured)
    assert 'names the issuer "https://other.test", expected "https://idp.test"' in found.reason
    assert found.reason.endswith("answered 503; if the first is right, write it as issuer")


def test_a_document_that_was_there_before_is_an_outage_where_it_is_not_there_now() -> None:
    found = driven(learn(ISSUER, first()), heard(404, b""), heard(404, b""))[1]
    assert isinstance(found, RetryLater)


@pytest.mark.parametrize("named", [ISSUER + "/", "https://other.test", "HTTPS://IDP.TEST", ""])
def test_the_issuer_in_the_document_must_be_the_very_one(named: str) -> None:
    found = both(issuer=named)
    assert isinstance(found, Misconfigured)
    assert f'expected "{ISSUER}"' in found.reason


BAD_URLS: list[object] = [
    "http://idp.test/token",
    "https://user:pass@idp.test/token",
    "https://idp.test/token#part",
    "//idp.test/token",
    "/token",
    "",
    "file:///etc/passwd",
    "https://",
    "https://idp.test:0/",
    "https://[broken/",
    "https://idp.test/\u2028",
    7,
    ["https://idp.test/token"],
    {},
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_endpoints_are_https_and_nothing_else(url: object) -> None:
    found = both(token_endpoint=url)
    assert isinstance(found, Misconfigured)
    assert "expected an https:// URL without user and fragment" in found.reason
    assert found.reason.endswith("; write token_url beside issuer")


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_endpoint_that_nobody_uses_stops_nothing(url: object) -> None:
    found = learnt(revocation_endpoint=url, mtls_endpoint_aliases={"token_endpoint": url})
    assert isinstance(found, Metadata)
    assert set(found.endpoints) == {"token_endpoint"}
    assert set(found.unusable) == {"revocation_endpoint", "token_endpoint"}


def test_a_document_without_a_token_endpoint_is_good_where_the_url_is_configured() -> None:
    document = heard(200, {**DOCUMENT, "token_endpoint": None})
    assert isinstance(driven(learn(ISSUER, None, needed=()), document)[1], Metadata)
    idp = OAuth2(issuer=ISSUER, token_url=f"{ISSUER}/t")
    assert isinstance(driven(idp.discover(None), document)[1], Metadata)
    assert isinstance(driven(OAuth2(issuer=ISSUER).discover(None), document, document)[1], Misconfigured)


def test_an_endpoint_that_cannot_be_used_is_named_by_who_needs_it() -> None:
    found = learnt(device_authorization_endpoint="/device", mtls_endpoint_aliases={"token_endpoint": ""})
    assert isinstance(found, Metadata)
    idp, settings = OAuth2(issuer=ISSUER), {"grant_type": "device_code", "client_auth": "none"}
    stopped = outcome_of(idp.login(GrantView({"client_id": Secret("c")}, settings)), found)
    assert isinstance(stopped, Misconfigured)
    assert stopped.reason == (
        'the issuer\'s metadata names as device_authorization_endpoint "/device", expected an https:// URL without user'
        " and fragment; write device_authorization_url"
    )
    settings = {"grant_type": "client_credentials", "client_auth": "tls_client_auth"}
    stopped = outcome_of(idp.issue(GrantView({"client_id": Secret("c")}, settings)), found)
    assert isinstance(stopped, Misconfigured)
    assert 'names as token_endpoint ""' in stopped.reason


def outcome_of(exchange: Exchange, metadata: Metadata) -> Outcome:
    """Of one that asks for nothing but metadata."""
    try:
        step = next(exchange)
        while True:
            assert isinstance(step, Discover)
            step = exchange.send(metadata)
    except StopIteration as stop:
        found: Outcome = stop.value
        return found


def test_an_issuer_over_plain_http_may_name_plain_http() -> None:
    issuer = "http://127.0.0.1:8080"
    found = driven(learn(issuer, None), heard(200, {"issuer": issuer, "token_endpoint": issuer + "/token"}))[1]
    assert isinstance(found, Metadata)


def test_origins_are_pinned_when_a_server_is_first_met() -> None:
    known = first()
    again = learnt(known, token_endpoint="https://tokens.idp.test/token")  # another place, at an origin that is known
    assert isinstance(again, Metadata)
    assert again.origins == known.origins
    found = learnt(known, token_endpoint="https://idp.test:8443/token")
    assert isinstance(found, Misconfigured)
    assert "the metadata now names token_endpoint at https://idp.test:8443" in found.reason
    assert "brokerctl trust" in found.reason


def test_a_stray_alias_for_mutual_tls_is_found_too() -> None:
    found = learnt(first(), mtls_endpoint_aliases={"token_endpoint": "https://evil.test/token"})
    assert isinstance(found, Misconfigured)


def test_what_an_operator_agreed_to_is_pinned_again() -> None:
    agreed = to_agree(first(public=True), ISSUER, NOW)
    found = learnt(agreed, public=True, token_endpoint="https://elsewhere.test/token")
    assert isinstance(found, Metadata)
    assert "https://elsewhere.test" in found.origins
    assert not found.guarded
    assert isinstance(learnt(found, token_endpoint="https://third.test/token"), Misconfigured)


def test_endpoints_of_a_public_issuer_are_guarded_for_good() -> None:
    known = first(public=True)
    assert known.guarded
    again = learnt(known, public=False)  # by a lying name server, say
    assert isinstance(again, Metadata)
    assert again.guarded
    assert not first(public=False).guarded


def test_a_document_is_believed_for_a_day() -> None:
    known = first()
    assert known.is_fresh(NOW.after(86_000))
    assert not known.is_fresh(NOW.after(87_000))
    assert not to_agree(known, ISSUER, NOW).is_fresh(NOW)
    assert not replace(known, fetched=NOW._replace(boot_id="before")).is_fresh(NOW._replace(trusted=False))
