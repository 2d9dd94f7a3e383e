# The [grants.NAME] tables: what they become, and each mistake with its whole message.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.core.grant.renewal import Pace
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES
from tests.unit.config.files import (
    A_DURATION,
    CORP,
    GRANT,
    error_of,
    loaded,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ('"90s"', 90.0),
        ('"5m"', 300.0),
        ('"2h"', 7_200.0),
        ('"1d"', 86_400.0),
        ('"1.5h"', 5_400.0),
        ('"2500ms"', 2.5),
        ('" 90s "', 90.0),
    ],
)
def test_a_duration_is_seconds_or_text_with_a_unit(main: Path, written: str, seconds: float) -> None:
    found = loaded(main, f"{GRANT}lifetime = {written}\non_demand = true\n")
    assert found.grants["g"].pace == Pace(lifetime=seconds, on_demand=True, lifetime_named=True)
    graced = loaded(main, GRANT.replace("[grants", f"reuse_grace = {written}\n[grants"))
    assert graced.grants["g"].pace.reuse_grace == seconds


@pytest.mark.parametrize(
    ("credentials", "auth"),
    [('client_id = "c", client_secret = "s"', "client_secret_basic"), ('client_id = "c"', "none")],
)
def test_a_client_with_a_secret_uses_basic_authentication_and_one_without_names_itself(
    main: Path, credentials: str, auth: str
) -> None:
    text = f'{CORP}[grants.g]\nprovider = "corp"\ngrant_type = "refresh_token"\ncredentials = {{ {credentials} }}'
    assert loaded(main, text).grants["g"].settings["client_auth"] == auth


@pytest.mark.parametrize(
    ("credentials", "method"),
    [
        ("", "none"),
        ('client_id = "c", ', "private_key_jwt"),
        ('client_id = "c", client_secret = "s", ', "client_secret_basic"),
    ],
)
def test_the_key_of_a_service_account_is_that_of_its_assertion_unless_a_client_is_named(
    main: Path, credentials: str, method: str
) -> None:
    text = f"""
[providers.corp]
dialect   = "oauth2"
token_url = "https://idp.example/token"

[grants.app]
provider    = "corp"
grant_type  = "jwt_bearer"
credentials = {{ {credentials}private_key = {{ file = "/key" }} }}
assertion   = {{ issuer = "svc@example", audience = "https://idp.example/token" }}
"""
    assert loaded(main, text).grants["app"].settings["client_auth"] == method


def test_what_is_asked_for_changes_with_the_scope_and_not_with_the_secret(main: Path) -> None:
    def asked(more: str) -> str:
        return loaded(main, GRANT + more).grants["g"].requested

    assert asked("") == asked("lifetime = 60\n")
    assert asked('scope = ["read"]') != asked("")
    assert asked('scope = ["read"]') != asked('scope = ["write"]')
    assert asked('audience = "a"') != asked('resource = "a"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grants.g]", "CONFIG: grants.g.provider: this key is required and missing"),
        (
            GRANT.replace('provider = "ix"', 'provider = "xi"'),
            'CONFIG: grants.g.provider: expected a provider of this configuration (ix), found "xi"',
        ),
        (
            '[grants.g]\nprovider = "ix"',
            'CONFIG: grants.g.provider: expected a provider of this configuration (none is configured), found "ix"',
        ),
        (GRANT + 'scope = "repo"', 'CONFIG: grants.g.scope: expected an array, found "repo"'),
        (GRANT + "scope = [5]", "CONFIG: grants.g.scope[0]: expected text, found 5"),
        (GRANT + 'on_demnd = true', "CONFIG: grants.g.on_demnd: unknown key; did you mean on_demand?"),
        (
            GRANT + "lifetime = 0.5",
            "CONFIG: grants.g.lifetime: expected a duration of a second or more, found 0.5",
        ),
        (
            GRANT + "lifetime = -1",
            f'CONFIG: grants.g.lifetime: expected {A_DURATION}, found -1',
        ),
        (
            GRANT + "lifetime = true",
            f'CONFIG: grants.g.lifetime: expected {A_DURATION}, found true',
        ),
        (
            GRANT + "lifetime = inf",
            f'CONFIG: grants.g.lifetime: expected {A_DURATION}, found inf',
        ),
        (
            GRANT + 'lifetime = "1 week"',
            f'CONFIG: grants.g.lifetime: expected {A_DURATION}, found "1 week"',
        ),
        (
            GRANT + 'grant_type = "password"',
            "CONFIG: grants.g.grant_type: only dialect oauth2 uses this key; remove it: "
            "a recipe defines itself what is sent",
        ),
        (
            GRANT.replace("api_key", "api_keys"),
            "CONFIG: grants.g.credentials.api_keys: recipe ix-api has no such credential; it has: api_key, api_secret",
        ),
        (
            GRANT + "settings = { ttl = 5 }",
            "CONFIG: grants.g.settings.ttl: recipe ix-api has no such setting; it has: none",
        ),
        (
            CORP + '[grants.g]\nprovider = "corp"\ncredentials = { client_id = "c" }',
            f"CONFIG: grants.g.grant_type: expected one of {', '.join(GRANT_TYPES)}, found nothing",
        ),
        (
            CORP + '[grants.g]\nprovider = "corp"\nsettings = { a = 5 }',
            "CONFIG: grants.g.settings: dialect oauth2 has no table of settings; remove it",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message


def test_fields_are_requested_so_that_a_change_gets_a_new_token(main: Path) -> None:
    text = f'{CORP}[grants.g]\nprovider = "corp"\ngrant_type = "refresh_token"\ncredentials = {{ client_id = "c" }}\n'
    bare, named = (loaded(main, text + more).grants["g"] for more in ("", 'fields = ["instance_url", "id_token"]'))
    assert "fields" not in bare.requested
    assert named.requested != bare.requested
    turned = loaded(main, text + 'fields = ["id_token", "instance_url"]').grants["g"]
    assert turned.requested == named.requested


@pytest.mark.parametrize("name", ["refresh_token", "access_token"])
def test_a_token_is_no_field(main: Path, name: str) -> None:
    text = f'{CORP}[grants.g]\nprovider = "corp"\ngrant_type = "refresh_token"\ncredentials = {{ client_id = "c" }}\n'
    assert f"grants.g.fields: {name}: remove it" in error_of(main, f'{text}fields = ["{name}"]')


def test_a_recipe_names_its_fields_itself(main: Path) -> None:
    assert "grants.g.fields: only dialect oauth2 uses this key" in error_of(main, f'{GRANT}fields = ["a"]')


STATIC = '[providers.s]\ndialect = "static"\n[grants.g]\nprovider = "s"\n'
ONLY = "remove this key: a static grant has credentials only, and its token is what token says"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "grants.g.credentials.token: this credential is the token, and it is missing; write token = { file = "),
        ('credentials = { token = "k" }\nscope = ["a"]', f"grants.g.scope: {ONLY}"),
        ('credentials = { token = "k" }\nlifetime = "1h"', f"grants.g.lifetime: {ONLY}"),
        ('credentials = { token = "k" }\non_demand = true', f"grants.g.on_demand: {ONLY}"),
        ('credentials = { token = "k" }\nsettings = { a = 1 }', f"grants.g.settings: {ONLY}"),
        ('credentials = { token = "k", access_token = "k" }', "grants.g.credentials: access_token: remove it"),
    ],
)
def test_a_static_grant_has_credentials_and_nothing_else(main: Path, text: str, message: str) -> None:
    assert message in error_of(main, STATIC + text)


def test_a_static_grant_is_a_token_and_its_fields(main: Path) -> None:
    text = 'credentials = { token = { file = "/etc/brokerd/secrets/key" }, access_key_id = "AKID" }'
    assert sorted(loaded(main, STATIC + text).grants["g"].credentials) == ["access_key_id", "token"]
