# Discovery, answer by answer: what is asked, what is believed, and what needs an operator's word (RFC 8414 §3).
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from brokerd.core.exchange import Discovery, Request, Response
from brokerd.core.metadata import Metadata, to_agree
from brokerd.core.moment import Moment
from brokerd.core.outcome import Misconfigured, Outcome, RetryLater
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
    assert "write token_url in the place of issuer" in found.reason


def test_the_second_place_counts_where_the_first_has_nothing() -> None:
    asked, found = driven(learn(ISSUER, None), heard(404, b""), heard(200, DOCUMENT))
    assert isinstance(found, Metadata)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "body"), [OTHERS_PAGE, (503, b""), (302, b""), (500, b"x"), (200, b"[]"), (407, b"")]
)
def test_an_answer_that_is_no_document_says_nothing(status: int, body: bytes) -> None:
    assert isinstance(driven(learn(ISSUER, None), heard(status, body))[1], RetryLater)


@pytest.mark.parametrize("named", [ISSUER + "/", "https://other.test", "HTTPS://IDP.TEST", ""])
def test_the_issuer_in_the_document_must_be_the_very_one(named: str) -> None:
    found = learnt(issuer=named)
    assert isinstance(found, Misconfigured)
    assert f'expected "{ISSUER}"' in found.reason


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.test/token",
        "https://user:pass@idp.test/token",
        "https://idp.test/token#part",
        "//idp.test/token",
        "file:///etc/passwd",
        "https://",
        "https://idp.test:0/",
        "https://[broken/",
        "https://idp.test/\u2028",
        7,
    ],
)
def test_endpoints_are_https_and_nothing_else(url: object) -> None:
    for changed in ({"token_endpoint": url}, {"mtls_endpoint_aliases": {"token_endpoint": url}}):
        found = learnt(**changed)  # type: ignore[arg-type]
        assert isinstance(found, Misconfigured)
        assert "token_endpoint: expected an https:// URL" in found.reason


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
    assert "token_endpoint at https://idp.test:8443 is new" in found.reason
    assert "brokerctl trust" in found.reason


def test_a_stray_alias_for_mutual_tls_is_found_too() -> None:
    found = learnt(first(), mtls_endpoint_aliases={"token_endpoint": "https://evil.test/token"})
    assert isinstance(found, Misconfigured)


def test_what_an_operator_agreed_to_is_pinned_anew() -> None:
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
