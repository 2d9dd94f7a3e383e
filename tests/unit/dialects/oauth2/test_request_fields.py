# Form fields that the configuration adds to requests: in which request they are sent, which are refused, and that a
# secret among them is masked everywhere.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.config.secrets import WANTED
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from tests.unit.dialects.exchange_driver import answer, sent, view, words
from tests.unit.dialects.exchange_driver import outcome as of
from tests.unit.dialects.oauth2.login_driver import BEGUN, SERVER, TOKENS, Driven, form
from tests.unit.dialects.oauth2.test_browser_login import Login

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
OURS = "brokerd sends this field itself; remove it"


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
    telling = revocable.revoke(seen, PendingRevocation(refresh_token=seen.refresh_token))
    assert telling is not None
    assert sent(telling).form["c"] == "3"


def test_a_code_that_a_browser_brought_is_exchanged_with_the_fields(tmp_path: Path) -> None:
    seen = configured(tmp_path, 'exchange = { tenant = "t-1" }', "authorization_code")
    asked = form(Login(answer(200, TOKENS), view=seen).requests[0])
    assert (asked["grant_type"], asked["tenant"]) == ("authorization_code", "t-1")


def test_a_downscoped_token_is_asked_for_with_its_own_scope_alone(tmp_path: Path) -> None:
    seen = configured(tmp_path, RENEW)
    narrow = GrantView(
        seen.credentials, seen.settings, seen.access_token, seen.refresh_token, seen.signer, target=Target(("read",))
    )
    found = sent(SERVER.renew(narrow)).form
    assert (found["scope"], found["redirect_uri"]) == ("read", "http://127.0.0.1/callback")


@pytest.mark.parametrize(
    ("grant_type", "text", "message"),
    [
        (
            "refresh_token",
            'renew = { refresh_token = "x" }',
            "request.renew.refresh_token: brokerd sends this field itself; remove it",
        ),
        (
            "refresh_token",
            'renew = { client_secret = "x" }',
            "request.renew.client_secret: brokerd sends this field itself; remove it",
        ),
        (
            "refresh_token",
            'issue = { a = "x" }',
            "request.issue: grant_type refresh_token has no such request; remove this table",
        ),
        (
            "device_code",
            'login = { scope = "x" }',
            "request.login.scope: brokerd sends the grant's own scope here; remove it",
        ),
        (
            "device_code",
            'exchange = { redirect_uri = "x" }',
            "request.exchange.redirect_uri: brokerd sends the login's own redirect_uri here; remove it",
        ),
        (
            "authorization_code",
            'login = { a = "x" }',
            "request.login: grant_type authorization_code has no such request; write authorization_params instead",
        ),
        ("refresh_token", 'renewal = { a = "x" }', "request.renewal: unknown key; did you mean renew?"),
        (
            "refresh_token",
            "renew = { a = 5 }",
            f"request.renew.a: expected {WANTED}, found a number",
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
