# Form fields that the configuration adds to requests: where they go, which are refused, and that a secret among them is
# one everywhere. Then npm's oidc-provider, which gives a narrower token where a renewal names a scope.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokerd.config import load
from brokerd.core.record import Doomed
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError
from brokerd.core.wanted import Wanted
from brokerd.dialects.dialect import GrantView
from tests.daemon.harness import Brokerd
from tests.dialects.answers import answer, sent, view, words
from tests.dialects.answers import outcome as of
from tests.logins.exchange import BEGUN, SERVER, TOKENS, Driven, form
from tests.logins.test_browser_dialect import Login
from tests.oauth2.test_real import by_issuer
from tests.realservers import OidcProvider, device_login, introspect

CONFIG = """
[providers.corp]
dialect   = "oauth2"
token_url = "https://idp.example/token?p=B2C_1_sign_in"

[grants.app]
provider    = "corp"
grant_type  = "GRANT_TYPE"
credentials = { client_id = "client-1" }
request     = REQUEST
"""
REDIRECT = "http://127.0.0.1/callback"
RENEW = f'renew = {{ scope = "api/.default offline_access", redirect_uri = "{REDIRECT}", key = {{ env = "KEY" }} }}'
OURS = "brokerd sends this field by itself"


def configured(folder: Path, request: str, grant_type: str = "refresh_token") -> GrantView:
    """The grant as its dialect sees it. Raises ConfigError."""
    file = folder / "brokerd.toml"
    folder.chmod(0o700)
    file.touch(mode=0o600)
    file.write_text(CONFIG.replace("GRANT_TYPE", grant_type).replace("REQUEST", f"{{ {request} }}"))
    grant = load(file).grants["app"]
    secrets = {name: source.text or Secret(f"secret of {name}") for name, source in grant.credentials.items()}
    seen = view({}, grant.settings, access="access-1", refresh="refresh-1")
    return GrantView(secrets, seen.settings, seen.access_token, seen.refresh_token, seen.signer)


def test_a_renewal_sends_what_the_provider_wants_there(tmp_path: Path) -> None:
    seen = configured(tmp_path, RENEW)
    assert sent(SERVER.renew(seen)).form == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-1",
        "client_id": "client-1",
        "scope": "api/.default offline_access",
        "redirect_uri": "http://127.0.0.1/callback",
        "key": "secret of request.renew.key",
    }


def test_a_secret_among_the_fields_is_a_credential_and_masked(tmp_path: Path) -> None:
    seen = configured(tmp_path, RENEW)
    grant = load(tmp_path / "brokerd.toml").grants["app"]
    assert dict(grant.sources)["request.renew.key"] == SecretSource(env="KEY")
    assert Secret("secret of request.renew.key") in sent(SERVER.renew(seen)).request.secrets
    refused = answer(400, {"error": "invalid_request", "error_description": "no: secret of request.renew.key"})
    assert "secret of" not in words(of(SERVER.renew(seen), refused))


def test_each_step_has_fields_of_its_own(tmp_path: Path) -> None:
    seen = configured(
        tmp_path, 'login = { a = "1" }, exchange = { b = "2", scope = "s" }, revoke = { c = "3" }', "device_code"
    )
    begin, poll = Driven(SERVER.login(seen), answer(200, BEGUN), answer(200, TOKENS)).requests
    assert form(begin) == {"client_id": "client-1", "a": "1"}
    assert (form(poll)["b"], form(poll)["scope"]) == ("2", "s")
    assert "b" not in sent(SERVER.renew(seen)).form
    revocable = type(SERVER)(token_url="https://idp.example/token", revocation_url="https://idp.example/revoke")
    telling = revocable.revoke(seen, Doomed(refresh_token=seen.refresh_token))
    assert telling is not None
    assert sent(telling).form["c"] == "3"


def test_a_code_that_a_browser_brought_is_exchanged_with_the_fields(tmp_path: Path) -> None:
    seen = configured(tmp_path, 'exchange = { tenant = "t-1" }', "authorization_code")
    asked = form(Login(answer(200, TOKENS), view=seen).requests[0])
    assert (asked["grant_type"], asked["tenant"]) == ("authorization_code", "t-1")


def test_a_downscoped_token_is_asked_for_with_its_own_scope_alone(tmp_path: Path) -> None:
    seen = configured(tmp_path, RENEW)
    narrow = GrantView(
        seen.credentials, seen.settings, seen.access_token, seen.refresh_token, seen.signer, wanted=Wanted(("read",))
    )
    found = sent(SERVER.renew(narrow)).form
    assert (found["scope"], found["redirect_uri"]) == ("read", "http://127.0.0.1/callback")


@pytest.mark.parametrize(
    ("grant_type", "text", "message"),
    [
        (
            "refresh_token",
            'renew = { refresh_token = "x" }',
            "request.renew.refresh_token: brokerd sends this field by itself",
        ),
        (
            "refresh_token",
            'renew = { client_secret = "x" }',
            "request.renew.client_secret: brokerd sends this field by itself",
        ),
        ("refresh_token", 'issue = { a = "x" }', "request.issue: refresh_token has no such request"),
        ("device_code", 'login = { scope = "x" }', "request.login.scope: the grant's own scope is sent here"),
        (
            "device_code",
            'exchange = { redirect_uri = "x" }',
            "request.exchange.redirect_uri: the login's own is sent here",
        ),
        (
            "authorization_code",
            'login = { a = "x" }',
            "request.login: authorization_code has no such request; write authorization_params",
        ),
        ("refresh_token", 'renewal = { a = "x" }', "request.renewal: unknown key; did you mean renew?"),
        (
            "refresh_token",
            "renew = { a = 5 }",
            "request.renew.a: expected text, or a table with one of file, credential, env, command, found a number",
        ),
        (
            "refresh_token",
            'renew = { a = { file = "secret" } }',
            "request.renew.a.file: expected an absolute path, found text",
        ),
        ("refresh_token", 'renew = { "" = "x" }', 'request.renew: expected the name of a form field, found ""'),
        ("refresh_token", 'renew = "hidden"', "request.renew: expected a table, found text"),
    ],
)
def test_what_cannot_be_added_is_refused(tmp_path: Path, grant_type: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"grants.app.{message}") + "$"):
        configured(tmp_path, text, grant_type)


def test_the_address_of_an_endpoint_may_have_a_query(tmp_path: Path) -> None:
    configured(tmp_path, RENEW)
    provider = load(tmp_path / "brokerd.toml").providers["corp"]
    request = sent(provider.dialect.renew(configured(tmp_path, RENEW))).request
    assert request.url == "https://idp.example/token?p=B2C_1_sign_in"


@pytest.mark.real
async def test_a_login_is_renewed_for_the_scope_that_the_configuration_names(
    brokerd: Brokerd, real_oidc: OidcProvider, tmp_path: Path
) -> None:
    key = tmp_path / "field"
    key.touch(mode=0o600)
    key.write_text("test-only-field\n")
    secret = real_oidc.clients["dev-basic"].secret
    grant = {
        "provider": "op",
        "grant_type": "refresh_token",
        "credentials": {"client_id": "dev-basic", "client_secret": secret},
        "request": {"renew": {"scope": "api:read", "more": {"file": key}}},
    }
    provider = {**by_issuer(real_oidc), "token_url": f"{real_oidc.token_url}?p=flow"}
    brokerd.configure({"app": grant}, {"op": provider})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=device_login(real_oidc))
    assert introspect(real_oidc, await brokerd.get("app"))["scope"] == "api:read"
