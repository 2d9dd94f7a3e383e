# The browser's way to log in: an authorization code with PKCE, state, nonce and issuer; the pushed request; and who the
# id_token says has logged in.
from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from brokerd.core.exchange.outcomes import Issued, Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.signing import thumbprint
from brokerd.core.exchange.steps import Ask, Request
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.discovery import learn
from tests.unit.dialects.exchange_driver import NOW, answer, jwt_of, meaning, words
from tests.unit.dialects.oauth2.login_driver import IDP, SERVER, TOKENS, form, grant, metadata

KNOWN = OAuth2(issuer=IDP)  # by its metadata
PUSHING = {"pushed_authorization_request_endpoint": f"{IDP}/par"}
CODE = "test-only-authorization-code"


class Login:
    """A login that is driven by what its own address says. `answers`: to its requests; `changed`: what of the browser's
    answer is another one than it should be, None: it is not there."""

    def __init__(
        self,
        *answers: object,
        server: OAuth2 = SERVER,
        view: GrantView | None = None,
        changed: Mapping[str, str | None] | None = None,
        knows: Metadata | None = None,
        claims: Mapping[str, object] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.kinds: list[str] = []
        self.params: dict[str, str] = {}
        self.redirect_uri = ""
        waiting = list(answers)
        exchange = server.login(view or grant("authorization_code"))
        reply: object = None
        try:
            while True:
                step = exchange.send(reply)  # type: ignore[arg-type]
                match step:
                    case Ask("listen"):
                        self.kinds.append("listen")
                        reply = {"port": Secret("40001")}
                    case Ask("browser", shown):
                        self.kinds.append("browser")
                        self.redirect_uri = str(shown["redirect_uri"])
                        self.params = dict(parse_qsl(urlsplit(str(shown["url"])).query))
                        came = {"code": CODE, "state": str(shown["state"]), "iss": IDP, **(changed or {})}
                        reply = {name: Secret(value) for name, value in came.items() if value is not None}
                    case Request():
                        self.requests.append(step)
                        reply = waiting.pop(0) if waiting else answer(200, self.tokens(claims))
                    case _:
                        reply = knows or metadata(names_issuer=True)
        except StopIteration as stop:
            self.outcome: Outcome = stop.value

    def tokens(self, claims: Mapping[str, object] | None) -> dict[str, object]:
        if claims is None:
            return TOKENS
        said = {"iss": IDP, "aud": "client-1", "sub": "alice", "nonce": self.params.get("nonce"), **claims}
        return {**TOKENS, "id_token": jwt_of(**{name: value for name, value in said.items() if value is not None})}


def test_the_code_is_exchanged_with_the_verifier_of_its_challenge() -> None:
    login = Login()
    assert login.kinds == ["listen", "browser"]
    assert login.redirect_uri == "http://127.0.0.1:40001/callback"
    (request,) = login.requests
    sent = form(request)
    verifier = sent.pop("code_verifier")
    assert sent == {
        "grant_type": "authorization_code",
        "code": CODE,
        "redirect_uri": "http://127.0.0.1:40001/callback",
        "client_id": "client-1",
    }
    assert request.sends_stored
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert (login.params["code_challenge"], login.params["code_challenge_method"]) == (challenge, "S256")
    assert len(verifier) >= 43
    assert {login.params[each] for each in ("response_type", "client_id", "scope")} == {"code", "client-1", "openid"}
    assert verifier not in str(login.params)
    again = Login()
    for name in ("state", "nonce", "code_challenge"):
        assert login.params[name] != again.params[name], f"{name} is another one each time"


def test_offline_access_asks_for_consent_and_the_configuration_has_the_last_word() -> None:
    scope = ("openid", "offline_access")
    assert Login(view=grant("authorization_code", scope)).params["prompt"] == "consent"
    params = {"prompt": "login consent", "access_type": "offline"}
    login = Login(view=grant("authorization_code", scope, authorization_params=params))
    assert (login.params["prompt"], login.params["access_type"]) == ("login consent", "offline")
    assert "nonce" not in Login(view=grant("authorization_code", ("api",))).params


def test_a_code_can_be_bound_to_the_key_of_its_tokens() -> None:
    view = grant("authorization_code")
    bound = replace(view, proof_key=view.sign.new_key())
    login = Login(view=bound)
    assert bound.proof_key is not None
    assert login.params["dpop_jkt"] == thumbprint(bound.proof_key)
    assert "DPoP" in dict(login.requests[0].headers)


def test_a_pushed_request_shows_the_browser_nothing_of_itself() -> None:
    known = metadata()
    known = replace(known, endpoints={**known.endpoints, **PUSHING})
    assert "code_challenge" in Login(server=KNOWN, knows=known).params, "it is not wanted"
    pushed = answer(201, {"request_uri": "urn:example:1", "expires_in": 60})
    own = Login(pushed, server=KNOWN, knows=known, view=grant("authorization_code", pushed_request=True))
    assert own.params == {"client_id": "client-1", "request_uri": "urn:example:1"}
    known = replace(known, wants_pushed=True)
    login = Login(pushed, server=KNOWN, knows=known)
    assert login.params == {"client_id": "client-1", "request_uri": "urn:example:1"}
    assert (login.requests[0].url, form(login.requests[0])["code_challenge_method"]) == (f"{IDP}/par", "S256")
    assert isinstance(login.outcome, Issued)
    refused = Login(answer(400, {"error": "invalid_request"}), server=KNOWN, knows=known)
    assert (refused.kinds, meaning(refused.outcome)) == (["listen"], "misconfigured")


def test_the_metadata_say_what_a_login_has_to_do() -> None:
    said = {"authorization_response_iss_parameter_supported": True, "require_pushed_authorization_requests": True}
    document = {"issuer": IDP, "token_endpoint": f"{IDP}/token", **said}
    discovery = learn(IDP, None)
    next(discovery)
    with pytest.raises(StopIteration) as stopped:
        discovery.send(answer(200, document))
    assert isinstance(found := stopped.value.value, Metadata)
    assert (found.names_issuer, found.wants_pushed) == (True, True)


@pytest.mark.parametrize(
    ("server", "changed", "meant", "said"),
    [
        (SERVER, {"state": "another"}, "rejected", "belongs to another login"),
        (SERVER, {"state": None}, "rejected", "belongs to another login"),
        (KNOWN, {"iss": "https://evil.example"}, "rejected", "not from this server"),
        (KNOWN, {"iss": None}, "rejected", "not from this server"),
        (KNOWN, {"iss": IDP + "/", "error": "access_denied"}, "rejected", "not from this server"),
        (SERVER, {"code": None}, "rejected", "no code"),
        (SERVER, {"code": None, "error": "access_denied"}, "rejected", "access_denied"),
        (SERVER, {"error": "access_denied"}, "rejected", "access_denied"),
        (SERVER, {"error": "server_error", "error_description": "a\x1b[2Jb"}, "rejected", "server_error: a [2Jb"),
        (SERVER, {"error": "invalid_scope"}, "misconfigured", "invalid_scope"),
    ],
)
def test_an_answer_that_is_not_this_logins_sends_nothing(
    server: OAuth2, changed: dict[str, str | None], meant: str, said: str
) -> None:
    login = Login(server=server, changed=changed)
    assert (login.requests, meaning(login.outcome), said in words(login.outcome)) == ([], meant, True)


def test_a_server_that_never_said_that_it_names_its_issuer_need_not() -> None:
    assert isinstance(Login(server=KNOWN, knows=metadata(), changed={"iss": None}).outcome, Issued)
    assert meaning(Login(server=KNOWN, knows=metadata(), changed={"iss": "https://evil.example"}).outcome) == "rejected"


def test_a_place_of_the_operators_own_is_taken_as_it_is() -> None:
    fixed = Login(view=grant("authorization_code", redirect_uri="http://localhost:8400/back"))
    assert (fixed.kinds, fixed.redirect_uri) == (["listen", "browser"], "http://localhost:8400/back")
    elsewhere = Login(view=grant("authorization_code", redirect_uri="https://client.example/cb"))
    assert (elsewhere.kinds, elsewhere.redirect_uri) == (["browser"], "https://client.example/cb")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"redirect_uri": "http://client.example/cb"}, "redirect_uri"),
        ({"redirect_uri": "http://127.0.0.1.evil.example/"}, "redirect_uri"),
        ({"redirect_uri": "https://client.example/#f"}, "redirect_uri"),
        ({"redirect_uri": "ftp://127.0.0.1/"}, "redirect_uri"),
        ({"authorization_params": {"state": "mine"}}, "authorization_params.state"),
        ({"authorization_params": {"code_challenge": "mine"}}, "authorization_params.code_challenge"),
    ],
)
def test_what_would_open_the_login_to_others_is_refused(settings: dict[str, object], key: str) -> None:
    view = grant("authorization_code", **settings)
    with pytest.raises(ConfigError) as caught:
        SERVER.check(frozenset(view.credentials), view.settings)
    assert caught.value.key == key


# Who it was (OpenID Connect Core 1.0 §3.1.3.7)


def test_the_id_token_says_who_it_was() -> None:
    login = Login(claims={})
    assert isinstance(login.outcome, Issued)
    assert login.outcome.tokens.subject == "alice"
    nobody = Login()
    assert isinstance(nobody.outcome, Issued)
    assert nobody.outcome.tokens.subject is None


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "client-2"}, "another client"),
        ({"aud": ["client-1", "client-2"], "azp": "client-2"}, "another client"),
        ({"nonce": "another"}, "another nonce"),
        ({"nonce": None}, "another nonce"),
        ({"exp": NOW.wall - 3_600}, "expired"),
        ({"exp": "soon"}, "expired"),
        ({"sub": ""}, "no subject"),
        ({"sub": "a" * 256}, "no subject"),
        ({"sub": 7}, "no subject"),
    ],
)
def test_an_id_token_that_is_for_something_else_is_not_believed(claims: dict[str, object], said: str) -> None:
    login = Login(server=KNOWN, claims=claims)
    assert (meaning(login.outcome), said in words(login.outcome)) == ("rejected", True)


@pytest.mark.parametrize("raw", ["no.jwt", "", 7, "a.b.c", "eyJhbGciOiJub25lIn0.W10."])
def test_an_id_token_that_is_none_is_not_believed(raw: object) -> None:
    login = Login(answer(200, {**TOKENS, "id_token": raw}))
    assert (meaning(login.outcome), "it is no JWT" in words(login.outcome)) == ("rejected", True)
