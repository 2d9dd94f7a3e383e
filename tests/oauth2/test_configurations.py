# Whatever a configuration passes its check with, and whatever a server answers: every exchange ends in an outcome, and
# never in an error of our own (law 12). And the choices that a client has to show who it is.
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brokerd.config import load
from brokerd.core.exchange import Answer, Ask, Discover, Exchange, Request, Response, TokenOf
from brokerd.core.metadata import Metadata
from brokerd.core.outcome import Declined, Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Unsupported
from brokerd.core.record import Doomed
from brokerd.core.secret import Secret
from brokerd.core.typed import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import OAuth2
from brokerd.dialects.oauth2.client_auth import METHODS, ClientAssertion
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES, Assertion, Subject
from tests.dialects.answers import NOW, Sent, answer, http_date, meaning, sent, view

ISSUER, TOKEN_URL = "https://idp.example", "https://idp.example/token"
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
VALUES = {
    "client_id": "client-1",
    "client_secret": "secret-of-client-1-that-is-long-enough",
    "private_key": PEM,
    "username": "user-1",
    "password": "password-1",
    "assertion": "assertion-1",
    "subject_token": "subject-1",
}
PLACES = {
    name: f"{ISSUER}/{name}"
    for name in ("token_endpoint", "device_authorization_endpoint", "authorization_endpoint", "revocation_endpoint")
}
SERVERS = [OAuth2(token_url=TOKEN_URL), OAuth2(issuer=ISSUER), OAuth2(token_url=TOKEN_URL, issuer=ISSUER)]
DOCUMENTS = [
    Metadata(ISSUER, NOW),
    Metadata(ISSUER, NOW, PLACES, auth_methods=("client_secret_jwt",)),
    Metadata(ISSUER, NOW, PLACES, auth_methods=("tls_client_auth", "none", "unheard_of")),
    Metadata(ISSUER, NOW, PLACES, endpoint_auth_methods={"revocation_endpoint": tuple(METHODS)}),
]
ANSWERS = [
    answer(200, {"access_token": "a", "token_type": "Bearer"}),
    answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall - 90)}),
    answer(401, {"error": "invalid_client"}),
    answer(200, [None]),
]
OUTCOMES = (Issued, Done, Unsupported, Rejected, Misconfigured, Declined, RetryLater)


def configurations(server: OAuth2) -> Iterator[GrantView]:
    """Every grant of some keys that passes the check."""
    kinds = ("client_id", "client_secret", "private_key", "username", "password", "assertion", "subject_token")
    owned = [frozenset(each) for size in range(5) for each in itertools.combinations(kinds, size)]
    more: dict[str, list[dict[str, object]]] = {
        "jwt_bearer": [{"assertion": Assertion("me", "you")}],
        "token_exchange": [{"subject": Subject()}, {"subject": Subject("other")}],
    }
    for name, method, credentials in itertools.product(GRANT_TYPES, ("auto", *METHODS), owned):
        audiences = ("", "issuer", "token_url", "endpoint") if method == "auto" or method.endswith("_jwt") else ("",)
        for extra, audience in itertools.product(more.get(name, [{}]), audiences):
            assertion = ClientAssertion(audience)
            settings = {"grant_type": name, "client_auth": method, "client_assertion": assertion, **extra}
            try:
                server.check(credentials, settings)
            except ConfigError:
                continue
            yield view({each: VALUES[each] for each in credentials}, settings, access="access-1", refresh="refresh-1")


def ended(exchange: Exchange, document: Metadata, response: Response) -> Outcome:
    """Answer every question in the same way. The number of steps is bounded: a login asks for a code until it ends."""
    given: Answer = None
    for _ in range(20):
        try:
            step = exchange.send(given)
        except StopIteration as stop:
            found: Outcome = stop.value
            return found
        match step:
            case Request():
                given = response
            case Discover():
                given = document
            case TokenOf():
                given = Secret("token-of-another")
            case Ask():
                given = {"password": Secret("p"), "port": Secret("5"), "state": Secret("s"), "code": Secret("c")}
            case _:
                given = None
    raise AssertionError("an exchange without an end")


@pytest.mark.parametrize("server", SERVERS[:2], ids=["token_url", "issuer"])
def test_no_configuration_that_passes_its_check_ends_in_an_error_of_ours(server: OAuth2) -> None:
    number = 0
    for grant in configurations(server):
        number += 1
        ability = server.ability(grant)
        told = server.revoke(grant, Doomed(refresh_token=grant.refresh_token)) is not None
        starts: list[Callable[[], Any]] = [partial(server.renew, grant)]
        starts += [partial(server.issue, grant)] * ability.issue + [partial(server.login, grant)] * ability.login
        starts += [partial(server.revoke, grant, Doomed(refresh_token=grant.refresh_token))] * told
        for start, (document, response) in itertools.product(starts, zip(DOCUMENTS, ANSWERS, strict=True)):
            assert isinstance(ended(start(), document, response), OUTCOMES)
    assert number > 50


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
    telling = server.revoke(keyed("endpoint"), Doomed(keyed().access_token))
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
            f"client_assertion.audience: the provider has no {audience}; write it there, or take another audience,"
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
    return driven(OAuth2(issuer=ISSUER).revoke(grant, Doomed(grant.access_token)), document, *answers)


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


# DPoP and clocks


def bound(**more: object) -> GrantView:
    grant = view({"client_id": "client-1"}, {"grant_type": "refresh_token", "client_auth": "none"}, refresh="r-1")
    return GrantView(grant.credentials, grant.settings, None, grant.refresh_token, grant.signer, Secret(PEM), **more)  # type: ignore[arg-type]


def proofs(*answers: Response) -> tuple[list[dict[str, object]], Outcome]:
    exchange, left = OAuth2(token_url=TOKEN_URL).renew(bound()), list(answers)
    given, found = cast(Answer, None), list[dict[str, object]]()
    while True:
        try:
            step = exchange.send(given)
        except StopIteration as stop:
            assert not left
            return found, stop.value
        assert isinstance(step, Request)
        found.append(jwt.decode(dict(step.headers)["DPoP"], options={"verify_signature": False}))
        given = left.pop(0)


GIVEN = answer(200, {"access_token": "a", "token_type": "DPoP"})


@pytest.mark.parametrize("skew", [-20.0, 20.0, 3_600.0])
@pytest.mark.parametrize(
    "error",
    [{"error": "invalid_dpop_proof"}, {"error": "invalid_request", "error_description": "DPoP proof is not active"}],
)
def test_a_proof_that_is_refused_for_its_time_is_made_again_by_the_servers_clock(
    skew: float, error: dict[str, str]
) -> None:
    refused = answer(400, error, {"date": http_date(NOW.wall + skew)})
    made, found = proofs(refused, GIVEN)
    assert [each["iat"] for each in made] == [int(NOW.wall), int(NOW.wall + skew)]
    assert made[0]["jti"] != made[1]["jti"]
    assert meaning(found) == "issued"


def test_a_proof_is_made_again_once_for_its_nonce_and_once_for_its_time() -> None:
    late = answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall + 90)})
    nonce = answer(400, {"error": "use_dpop_nonce"}, {"dpop-nonce": "n-1"})
    made, found = proofs(nonce, late, GIVEN)
    assert [each.get("nonce") for each in made] == [None, "n-1", "n-1"]
    assert meaning(found) == "issued"
    made, found = proofs(late, nonce, late)
    assert (len(made), meaning(found)) == (3, "misconfigured")


@pytest.mark.parametrize(
    "refused",
    [
        answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall + 1)}),
        answer(400, {"error": "invalid_dpop_proof"}),
        answer(400, {"error": "invalid_request"}, {"date": http_date(NOW.wall + 90)}),
        answer(400, {"error": "use_dpop_nonce"}),
    ],
)
def test_a_proof_is_not_made_again_where_that_could_not_help(refused: Response) -> None:
    made, found = proofs(refused)
    assert (len(made), meaning(found)) == (1, "misconfigured")
