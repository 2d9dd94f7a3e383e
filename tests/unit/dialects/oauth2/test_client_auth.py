# How a client shows who it is: client_secret_basic, client_secret_post, assertions, no client at all; and the second
# way when the server refuses the first.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.config.load import load
from brokerd.core.exchange.outcomes import Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Answer, Discover, Exchange, Request, Response
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.tokens import RefreshToken
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.client_auth import ClientAssertion
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import Assertion, Subject, with_uris
from tests.unit.dialects.exchange_driver import NOW, Sent, answer, jwt_of, meaning, sent, view, words
from tests.unit.dialects.oauth2.configured_grants import DOCUMENTS, ISSUER, PEM, PLACES, SERVERS, TOKEN_URL, VALUES
from tests.unit.dialects.oauth2.oauth2_grants import GRANT, IDP, basic, grant

OLD = RefreshToken(Secret("refresh-1"), NOW, None, 0.5)
ODD_ID, ODD_SECRET = "client:1 ü", "s%20cret+/&=ö:"


def test_client_credentials_are_asked_for_with_a_form_and_basic_authentication() -> None:
    request = sent(IDP.issue(GRANT))
    assert request.line == f"POST {IDP.token_url}"
    assert request.form == {"grant_type": "client_credentials"}
    assert basic(request.request) == ("client-1", "secret-of-client-1")
    assert not request.request.sends_stored


def test_id_and_secret_are_form_encoded_before_they_are_joined() -> None:
    request = sent(IDP.issue(grant(client_id=ODD_ID, secret=ODD_SECRET)))
    assert basic(request.request) == (ODD_ID, ODD_SECRET)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_id_and_secret_come_through_basic_authentication(client_id: str, secret: str) -> None:
    assert basic(sent(IDP.issue(grant(client_id=client_id, secret=secret))).request) == (client_id, secret)


def test_a_client_can_send_its_secret_in_the_form() -> None:
    request = sent(IDP.issue(grant(client_auth="client_secret_post", client_id=ODD_ID, secret=ODD_SECRET)))
    assert request.form == {"grant_type": "client_credentials", "client_id": ODD_ID, "client_secret": ODD_SECRET}
    assert "Authorization" not in request.headers


def test_a_public_client_names_itself_only() -> None:
    request = sent(IDP.renew(grant("refresh_token", "none")))
    assert request.form == {"grant_type": "refresh_token", "refresh_token": "refresh-1", "client_id": "client-1"}
    assert "Authorization" not in request.headers


# Who the client is
def assertion_of(request: Sent) -> dict[str, object]:
    signed = request.form["client_assertion"]
    found: dict[str, object] = jwt.decode(signed, options={"verify_signature": False})
    return found


def keyed(audience: str = "") -> GrantView:
    settings = {"grant_type": "client_credentials", "client_auth": "private_key_jwt"}
    settings["client_assertion"] = ClientAssertion(audience)  # type: ignore[assignment]
    return view({"client_id": "client-1", "private_key": PEM}, settings, access="access-1", refresh="refresh-1")


def test_an_assertion_can_be_for_the_very_endpoint_that_is_asked() -> None:
    server = OAuth2(token_url=TOKEN_URL, revocation_url=f"{ISSUER}/revoke")
    assert assertion_of(sent(server.issue(keyed("endpoint"))))["aud"] == TOKEN_URL
    telling = server.revoke(keyed("endpoint"), PendingRevocation(keyed().access_token))
    assert telling is not None
    assert assertion_of(sent(telling))["aud"] == f"{ISSUER}/revoke"


@pytest.mark.parametrize(
    ("server", "audience"), [(OAuth2(issuer=ISSUER), "token_url"), (OAuth2(token_url=TOKEN_URL), "issuer")]
)
def test_an_audience_that_the_provider_does_not_have_is_a_mistake_in_the_configuration(
    server: OAuth2, audience: str
) -> None:
    for method in ("auto", "private_key_jwt"):
        settings = {**keyed(audience).settings, "client_auth": method}
        with pytest.raises(ConfigError) as caught:
            server.check(frozenset({"client_id", "private_key"}), settings)
        assert str(caught.value) == (
            f"client_assertion.audience: the provider has no {audience}; add it there, or choose another audience,"
            ' such as "endpoint"'
        )


@pytest.mark.parametrize("server", SERVERS, ids=["token_url", "issuer", "both"])
@pytest.mark.parametrize("method", ["auto", "none"])
def test_a_service_account_needs_no_client(server: OAuth2, method: str) -> None:
    settings = {"grant_type": "jwt_bearer", "client_auth": method, "assertion": Assertion("svc", TOKEN_URL)}
    server.check(frozenset({"private_key"}), settings)
    exchange = server.issue(view({"private_key": PEM}, settings))
    step = next(exchange)
    if isinstance(step, Discover):
        step = exchange.send(DOCUMENTS[1])
    assert isinstance(step, Request)
    assert set(Sent(step).form) == {"grant_type", "assertion"}


def test_a_user_and_a_password_need_no_client() -> None:
    settings = {"grant_type": "password", "client_auth": "none"}
    server = OAuth2(token_url=TOKEN_URL)
    server.check(frozenset({"username", "password"}), settings)
    grant = view({"username": "user-1", "password": "password-1"}, settings, refresh="refresh-1")
    assert sent(server.issue(grant)).form == {
        "grant_type": "password",
        "username": "user-1",
        "password": "password-1",
    }
    assert sent(server.renew(grant)).form == {"grant_type": "refresh_token", "refresh_token": "refresh-1"}


def test_a_configuration_may_name_a_user_and_no_client(tmp_path: Path) -> None:
    file = tmp_path / "brokerd.toml"
    file.touch(mode=0o600)
    file.write_text(
        f"""
[providers.api]
dialect   = "oauth2"
token_url = "{TOKEN_URL}"

[grants.app]
provider    = "api"
grant_type  = "password"
credentials = {{ username = "user-1", password = "password-1" }}
"""
    )
    tmp_path.chmod(0o700)
    assert load(file).grants["app"].settings["client_auth"] == "none"


@pytest.mark.parametrize("credential", ["client_secret", "private_key"])
def test_a_secret_without_the_client_that_it_belongs_to_is_a_mistake(credential: str) -> None:
    settings = {"grant_type": "password", "client_auth": "auto"}
    with pytest.raises(ConfigError, match="client_id: required"):
        OAuth2(issuer=ISSUER).check(frozenset({"username", "password", credential}), settings)


# Revocation with another client authentication than the token endpoint's
def driven(exchange: Exchange | None, document: Metadata, *answers: Response) -> tuple[list[Sent], Outcome]:
    """What was asked, and what came of it. Every answer has to be wanted."""
    assert exchange is not None
    requests: list[Sent] = []
    left, given = list(answers), cast(Answer, None)
    while True:
        try:
            step = exchange.send(given)
        except StopIteration as stop:
            assert not left
            return requests, stop.value
        if isinstance(step, Request):
            requests.append(Sent(step))
        given = left.pop(0) if isinstance(step, Request) else document


def by_post(**named: tuple[str, ...]) -> tuple[GrantView, Metadata]:
    """A client that sends its secret in the form, and a server that wants something else at these endpoints."""
    settings = {"grant_type": "refresh_token", "client_auth": "client_secret_post"}
    credentials = {"client_id": "client-1", "client_secret": VALUES["client_secret"]}
    places = {**PLACES, "introspection_endpoint": f"{ISSUER}/introspect"}
    return view(credentials, settings, access="access-1"), Metadata(ISSUER, NOW, places, endpoint_auth_methods=named)


def telling(named: tuple[str, ...], *answers: Response) -> tuple[list[Sent], Outcome]:
    grant, document = by_post(revocation_endpoint=named)
    return driven(OAuth2(issuer=ISSUER).revoke(grant, PendingRevocation(grant.access_token)), document, *answers)


def test_a_revocation_that_is_refused_is_sent_as_the_metadata_says() -> None:
    refused = answer(401, {"error": "invalid_client"})
    requests, found = telling(("unheard_of", "client_secret_post", "client_secret_basic"), refused, answer(200))
    assert ["Authorization" in each.headers for each in requests] == [False, True]
    assert meaning(found) == "done"


@pytest.mark.parametrize("named", [(), ("client_secret_post",), ("private_key_jwt", "tls_client_auth")])
def test_a_revocation_is_sent_once_where_the_metadata_names_nothing_better(named: tuple[str, ...]) -> None:
    requests, found = telling(named, answer(401, {"error": "invalid_client"}))
    assert len(requests) == 1
    assert meaning(found) == "misconfigured"


def test_a_question_about_a_token_is_sent_again_in_the_same_way() -> None:
    grant, document = by_post(introspection_endpoint=("client_secret_basic",))
    assert grant.access_token is not None
    asking = OAuth2(issuer=ISSUER).verify(grant, grant.access_token)
    refused = answer(401, {"error": "invalid_client"})
    requests, found = driven(asking, document, refused, answer(200, {"active": True}))
    assert ["Authorization" in each.headers for each in requests] == [False, True]
    assert meaning(found) == "done"


def test_a_revocation_that_is_refused_twice_says_so() -> None:
    refused = answer(401, {"error": "invalid_client"})
    requests, found = telling(("client_secret_basic",), refused, refused)
    assert len(requests) == 2
    assert meaning(found) == "misconfigured"


# Assertions that others signed


def asserted(
    token: str, method: str = "client_assertion", source: SecretSource | None = None, **more: object
) -> GrantView:
    settings = {"grant_type": "client_credentials", "client_auth": method, **more}
    made = view({"client_id": "client-1", "client_assertion": token}, settings)
    return replace(made, sources={"client_assertion": source or SecretSource(file="/var/run/secrets/token")})


@pytest.mark.parametrize(
    ("method", "kind"), [("client_assertion", "jwt-bearer"), ("auto", "jwt-bearer"), ("spiffe_jwt", "jwt-spiffe")]
)
def test_an_assertion_that_others_signed_is_passed_on(method: str, kind: str) -> None:
    token = jwt_of()
    server = SERVERS[2] if method == "auto" else IDP
    requests, _ = driven(server.issue(asserted(token, method)), DOCUMENTS[0], answer(400, {"error": "invalid_client"}))
    assert requests[0].form == {
        "grant_type": "client_credentials",
        "client_id": "client-1",
        "client_assertion_type": f"urn:ietf:params:oauth:client-assertion-type:{kind}",
        "client_assertion": token,
    }
    assert Secret(token) in requests[0].request.secrets


@pytest.mark.parametrize(
    ("token", "source", "said"),
    [
        ("test-only-no-jwt", None, "client_assertion (/var/run/secrets/token): expected a JWT"),
        ("a.b.c", SecretSource(grant="idp"), "client_assertion (the token of the grant idp): expected a JWT"),
        ("a.b.c", SecretSource(grant="idp", field="jwt"), "client_assertion (jwt of the token of the grant idp): exp"),
        (jwt_of(NOW.wall - 7_200), None, "(/var/run/secrets/token): this JWT expired 3600 s ago, at 2027-01-15 07:00"),
        (jwt_of(-1e12, 5), None, "this JWT expired"),
    ],
)
def test_what_is_no_living_jwt_is_not_sent_and_its_place_is_named(
    token: str, source: SecretSource | None, said: str
) -> None:
    for ask in (IDP.issue, IDP.renew):
        refreshing = replace(asserted(token, source=source), refresh_token=OLD)
        requests, outcome = driven(ask(refreshing), DOCUMENTS[0])
        assert (requests, meaning(outcome), said in words(outcome)) == ([], "misconfigured", True), words(outcome)
        assert token not in words(outcome)
    revocation = IDP.revoke(asserted(token, source=source), PendingRevocation(refresh_token=OLD))
    requests, outcome = driven(revocation, DOCUMENTS[0])
    assert (requests, said in words(outcome)) == ([], True)


def test_a_clock_that_is_a_little_ahead_is_no_reason_to_send_nothing() -> None:
    requests, _ = driven(IDP.issue(asserted(jwt_of(NOW.wall - 3_650))), DOCUMENTS[0], answer(200, {}))
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("name", "grant_type", "more"),
    [
        ("assertion", "jwt_bearer", {}),
        ("subject_token", "token_exchange", {"subject": with_uris(Subject())}),
        ("subject.grant", "token_exchange", {"subject": with_uris(Subject("idp"))}),
    ],
)
def test_an_assertion_or_subject_that_is_a_dead_jwt_is_not_sent_either(
    name: str, grant_type: str, more: dict[str, object]
) -> None:
    settings = {"grant_type": grant_type, "client_auth": "none", **more}
    for token, sends in ((jwt_of(NOW.wall - 7_200), 0), (jwt_of(), 1), ("test-only-opaque", 1)):
        requests, outcome = driven(IDP.issue(view({name: token}, settings)), DOCUMENTS[0], *[answer(200, {})] * sends)
        assert len(requests) == sends
        assert (f"{name}: this JWT expired 3600 s ago" in words(outcome)) == (not sends)


@pytest.mark.parametrize(
    ("credentials", "method"),
    [
        ('client_assertion = { file = "/t" }', "client_assertion"),
        ('client_assertion = { file = "/t" }, client_secret = "s"', None),
    ],
)
def test_a_client_with_an_assertion_uses_it(tmp_path: Path, credentials: str, method: str | None) -> None:
    path = tmp_path / "brokerd.toml"
    path.touch(mode=0o600)
    path.write_text(
        f'[providers.idp]\ndialect = "oauth2"\ntoken_url = "{TOKEN_URL}"\n[grants.g]\nprovider = "idp"\n'
        f'grant_type = "client_credentials"\ncredentials = {{ client_id = "c", {credentials} }}\n'
    )
    if method is None:
        with pytest.raises(ConfigError, match=r"client_secret: remove it: client_credentials with client_assertion"):
            load(path)
    else:
        assert load(path).grants["g"].settings["client_auth"] == method
