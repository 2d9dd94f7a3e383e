# The configuration: the contract's example, and for each kind of mistake the whole message: file, key, expected, found.
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brokerd.config import BUILT_IN_RECIPES, Configuration, load
from brokerd.core.policy import Action, Rule, Selector
from brokerd.core.renewal import Pace
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError
from brokerd.daemon import check_configuration
from brokerd.dialects.oauth2 import GRANT_TYPES, OAuth2
from brokerd.dialects.recipe import RecipeDialect
from brokerd.edge import keys
from brokerd.installation import http_settings

A_NAME = "a name of up to 128 letters, digits, dots, dashes and underscores"
A_DURATION = 'a duration: seconds, or text such as "90s", "5m", "2h"'

CONTRACT = """
[daemon]
socket    = "/run/brokerd/brokerd.sock"
state_dir = "/var/lib/brokerd"
key       = { file = "/etc/brokerd/key" }

[providers.ix]
dialect  = "ix-api"
base_url = "https://api.ix.example/api/v2"

[providers.corp]
dialect        = "oauth2"
token_url      = "https://idp.example/oauth/token"
revocation_url = "https://idp.example/oauth/revoke"
ca_file        = "CA_FILE"

[grants.ix-prod]
provider    = "ix"
credentials = { api_key = "k-1", api_secret = { file = "/etc/brokerd/secrets/ix" } }

[grants.reports]
provider    = "corp"
grant_type  = "client_credentials"
client_auth = "client_secret_basic"
credentials = { client_id = "reports", client_secret = { credential = "reports-secret" } }
scope       = ["read"]

[[allow]]
grants  = ["ix-prod", "reports"]
caller  = { user = "portal" }
actions = ["get"]
"""
DIALECTS = ", ".join(("oauth2", *sorted(file.stem for file in BUILT_IN_RECIPES.glob("*.toml"))))
IX = """
[providers.ix]
dialect  = "ix-api"
base_url = "https://api.ix.example/api/v2"
"""
CORP = """
[providers.corp]
dialect   = "oauth2"
token_url = "https://idp.example/oauth/token"
"""
SECRETS = 'credentials = { api_key = "k-1", api_secret = { file = "/s" } }\n'
GRANT = IX + '[grants.g]\nprovider = "ix"\n' + SECRETS


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return tmp_path / "brokerd.toml"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def loaded(main: Path, text: str) -> Configuration:
    return load(write(main, text))


def error_of(main: Path, text: str | None = None) -> str:
    """The message, with the main file's name cut to CONFIG."""
    if text is not None:
        write(main, text)
    with pytest.raises(ConfigError) as caught:
        load(main)
    return str(caught.value).replace(str(main), "CONFIG").replace(str(main.parent), "DIR")


# What the contract says (DESIGN.md 6)


def test_the_example_of_the_contract_is_read_as_it_is_meant(main: Path) -> None:
    ca_file = write(main.parent / "ca.pem", "a certificate")
    found = loaded(main, CONTRACT.replace("CA_FILE", str(ca_file)))
    assert found.path == str(main)
    assert found.daemon.socket == "/run/brokerd/brokerd.sock"
    assert found.daemon.state_dir == "/var/lib/brokerd"
    assert found.daemon.key == SecretSource(file="/etc/brokerd/key")
    assert (found.daemon.socket_mode, found.daemon.socket_group) == (0o660, None)
    ix, corp = found.providers["ix"], found.providers["corp"]
    assert isinstance(ix.dialect, RecipeDialect)
    assert (ix.dialect.recipe.name, ix.dialect.base_url) == ("ix-api", "https://api.ix.example/api/v2")
    assert corp.dialect == OAuth2("https://idp.example/oauth/token", "https://idp.example/oauth/revoke")
    assert corp.ca_file == str(ca_file)
    grant = found.grants["ix-prod"]
    assert grant.provider is ix
    assert grant.credentials == {
        "api_key": SecretSource(text=Secret("k-1")),
        "api_secret": SecretSource(file="/etc/brokerd/secrets/ix"),
    }
    assert grant.pace == Pace(lifetime=3_600.0, on_demand=False, reuse_grace=0.0)
    reports = found.grants["reports"]
    assert reports.settings == {
        "grant_type": "client_credentials",
        "client_auth": "client_secret_basic",
        "scope": ["read"],
    }
    assert reports.credentials["client_secret"] == SecretSource(credential="reports-secret")
    assert found.rules == (Rule(("ix-prod", "reports"), (Selector(user="portal"),), frozenset({Action.GET})),)


def test_an_empty_file_is_a_configuration_of_nothing_with_the_defaults(main: Path) -> None:
    found = loaded(main, "")
    assert (found.providers, found.grants, found.rules) == ({}, {}, ())
    assert (found.daemon.key, found.daemon.passphrase) == (None, False)
    assert found.daemon.socket is None
    assert found.daemon.state_dir is None


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


def test_how_long_an_answer_is_waited_for_is_a_providers_setting(main: Path) -> None:
    assert loaded(main, GRANT).grants["g"].provider.answer_timeout is None
    slow = loaded(main, GRANT.replace("[grants", 'answer_timeout = "10m"\n[grants')).grants["g"].provider
    assert http_settings(slow).patience(spends=True).answer == 600
    assert http_settings(slow).patience(spends=False).answer == 600


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ('"hunter2"', SecretSource(text=Secret("hunter2"))),
        ('{ file = "/s" }', SecretSource(file="/s")),
        ('{ credential = "name" }', SecretSource(credential="name")),
        ('{ env = "NAME" }', SecretSource(env="NAME")),
        ('{ command = ["/bin/pass", "x"] }', SecretSource(command=("/bin/pass", "x"))),
    ],
)
def test_a_secret_is_text_or_a_table_with_one_source(main: Path, written: str, source: SecretSource) -> None:
    found = loaded(main, GRANT.replace('{ file = "/s" }', written))
    assert found.grants["g"].credentials["api_secret"] == source


@pytest.mark.parametrize(
    ("caller", "selectors"),
    [
        ("{ uid = 0 }", (Selector(uid=0),)),
        ('{ user = "a", group = "b", gid = 5 }', (Selector(user="a", group="b", gid=5),)),
        ('[{ user = "a" }, { user = "b" }]', (Selector(user="a"), Selector(user="b"))),
    ],
)
def test_a_caller_is_one_table_or_a_list_of_alternatives(
    main: Path, caller: str, selectors: tuple[Selector, ...]
) -> None:
    found = loaded(main, f'{GRANT}[[allow]]\ngrants = ["*"]\ncaller = {caller}\nactions = ["refresh", "admin"]')
    assert found.rules == (Rule(("*",), selectors, frozenset({Action.REFRESH, Action.ADMIN})),)


def test_a_rule_is_for_get_where_it_names_no_action(main: Path) -> None:
    found = loaded(main, f'{GRANT}[[allow]]\ngrants = ["g"]\ncaller = {{ uid = 5 }}')
    assert found.rules[0].actions == {Action.GET}


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
        return loaded(main, GRANT + more).grants["g"].asked

    assert asked("") == asked("lifetime = 60\n")
    assert asked('scope = ["read"]') != asked("")
    assert asked('scope = ["read"]') != asked('scope = ["write"]')
    assert asked('audience = "a"') != asked('resource = "a"')


# Mistakes, each with its whole message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[provider.ix]", "CONFIG: provider: unknown table; known: [daemon], [providers.…], [grants.…], [[allow]]"),
        ("providers = 5", "CONFIG: providers: expected a table, found 5"),
        ("[allow]\ngrants = []", "CONFIG: allow: expected an array, found a table"),
        (
            '[providers."a b"]',
            f'CONFIG: providers: expected {A_NAME}, found "a b"',
        ),
        (
            "[grants.-x]",
            f'CONFIG: grants: expected {A_NAME}, found "-x"',
        ),
        ("[daemon]\nsockt = 5", "CONFIG: daemon.sockt: unknown key; did you mean socket?"),
        ("daemon = 5", "CONFIG: daemon: expected a table, found 5"),
        ('[daemon]\nsocket = "run.sock"', 'CONFIG: daemon.socket: expected an absolute path, found "run.sock"'),
        ('[daemon]\nstate_dir = "var"', 'CONFIG: daemon.state_dir: expected an absolute path, found "var"'),
        (
            '[daemon]\nsocket_mode = "rw"',
            'CONFIG: daemon.socket_mode: expected an octal mode as text, such as "0660", found "rw"',
        ),
        ("[daemon]\nsocket_mode = 660", "CONFIG: daemon.socket_mode: expected text or nothing, found 660"),
        ('[daemon]\nkey = "k"', 'CONFIG: daemon.key: expected a table or nothing, found text'),
        (
            "[daemon]\nkey = {}",
            "CONFIG: daemon.key: expected exactly one of file, credential, env, command; found none: write "
            'key = { file = "/etc/brokerd/key" }',
        ),
        (
            '[daemon]\nkey = { file = "/k", env = "K" }',
            "CONFIG: daemon.key: expected exactly one of file, credential, env, command; found file and env: write "
            'key = { file = "/etc/brokerd/key" }',
        ),
        ('[daemon]\nkey = { file = "k" }', 'CONFIG: daemon.key.file: expected an absolute path, found text'),
        ("[providers.ix]", "CONFIG: providers.ix.dialect: this key is required and missing"),
        (
            '[providers.ix]\ndialect = "ix"',
            f'CONFIG: providers.ix.dialect: expected one of {DIALECTS}, found "ix"',
        ),
        (
            '[providers.ix]\ndialect = "../../etc/passwd"',
            f"CONFIG: providers.ix.dialect: expected one of {DIALECTS}, found "
            '"../../etc/passwd"',
        ),
        (
            '[providers.ix]\ndialect = "ix-api"',
            'CONFIG: providers.ix.base_url: this key is required and missing, for example "https://idp.example/…"',
        ),
        (
            '[providers.ix]\ndialect = "oauth2"',
            "CONFIG: providers.ix.token_url: this key is required and missing; or name an issuer, to have it found",
        ),
        (IX + 'bse_url = "x"', "CONFIG: providers.ix.bse_url: unknown key; did you mean base_url?"),
        (
            IX.replace("https:", "ftp:"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found "
            '"ftp://api.ix.example/api/v2"',
        ),
        (
            IX.replace("/v2", "/v2?key=5"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found text",
        ),
        (
            IX.replace("https://", "https://me:hunter2@"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found text",
        ),
        (
            IX.replace(".example", ".example:port"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found "
            '"https://api.ix.example:port/api/v2"',
        ),
        (
            IX + 'token_url = "https://idp.example"',
            "CONFIG: providers.ix.token_url: ix-api is a recipe and takes base_url in the place of token_url",
        ),
        (
            CORP + 'base_url = "https://idp.example"',
            "CONFIG: providers.corp.base_url: oauth2 takes issuer, or token_url, in the place of base_url",
        ),
        (CORP + "settings = { a = 1 }", "CONFIG: providers.corp.settings: oauth2 has no further settings"),
        (IX + "settings = { a = 1 }", "CONFIG: providers.ix.settings.a: ix-api knows no such setting; known: none"),
        (IX + "concurrency = 0", "CONFIG: providers.ix.concurrency: expected a whole number of 1 or more, found 0"),
        (IX + 'concurrency = "8"', 'CONFIG: providers.ix.concurrency: expected a whole number, found "8"'),
        (
            IX + 'answer_timeout = "2h"',
            "CONFIG: providers.ix.answer_timeout: expected a duration from one second to one hour, found 7200.0",
        ),
        (
            IX + 'reuse_grace = "soon"',
            f'CONFIG: providers.ix.reuse_grace: expected {A_DURATION}, found '
            '"soon"',
        ),
        (
            IX + 'ca_file = "/nowhere/ca.pem"',
            'CONFIG: providers.ix.ca_file: expected the absolute path of a file that is there, found "/nowhere/ca.pem"',
        ),
        (IX + 'key_file = "/nowhere/k.pem"', "CONFIG: providers.ix.key_file: a key_file needs its cert_file"),
        (IX + "insecure_http = 1", "CONFIG: providers.ix.insecure_http: expected true or false, found 1"),
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
            "CONFIG: grants.g.grant_type: only oauth2 has this; a recipe says itself what is sent",
        ),
        (
            GRANT.replace("api_key", "api_keys"),
            "CONFIG: grants.g.credentials.api_keys: ix-api knows no such credential; known: api_key, api_secret",
        ),
        (
            GRANT + "settings = { ttl = 5 }",
            "CONFIG: grants.g.settings.ttl: ix-api knows no such setting; known: none",
        ),
        (
            CORP + '[grants.g]\nprovider = "corp"\ncredentials = { client_id = "c" }',
            f"CONFIG: grants.g.grant_type: expected one of {', '.join(GRANT_TYPES)}, found nothing",
        ),
        (
            CORP + '[grants.g]\nprovider = "corp"\nsettings = { a = 5 }',
            "CONFIG: grants.g.settings: oauth2 has no further settings",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nscope = []',
            "CONFIG: allow[0].scope: expected an array of names or globs; leave it out for the grant's own token, "
            "found an empty array",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = ["status"]\nresource = ["a"]',
            "CONFIG: allow[0].resource: it says which tokens may be got, and actions has no get",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = {}',
            "CONFIG: allow[0].caller: an empty caller would let everybody in; name one or more of user, "
            "uid, group, gid, exe, sha256, unit, slice, user_unit, container",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = [{ uid = 5 }, {}]',
            "CONFIG: allow[0].caller[1]: an empty caller would let everybody in; name one or more of user, "
            "uid, group, gid, exe, sha256, unit, slice, user_unit, container",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = []',
            'CONFIG: allow[0].caller: expected a caller such as { user = "portal" }, found an empty array',
        ),
        (GRANT + '[[allow]]\ngrants = ["*"]', "CONFIG: allow[0].caller: this key is required and missing"),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = "portal"',
            'CONFIG: allow[0].caller: expected a table, found "portal"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { usr = "portal" }',
            "CONFIG: allow[0].caller.usr: unknown key; did you mean user?",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = "portal" }',
            'CONFIG: allow[0].caller.uid: expected a whole number or nothing, found "portal"',
        ),
        (GRANT + "[[allow]]\ncaller = { uid = 5 }", "CONFIG: allow[0].grants: this key is required and missing"),
        (
            GRANT + "[[allow]]\ngrants = []\ncaller = { uid = 5 }",
            'CONFIG: allow[0].grants: expected an array of grant names or globs, such as ["ix-*"], found an empty '
            "array",
        ),
        (
            GRANT + '[[allow]]\ngrants = "*"\ncaller = { uid = 5 }',
            'CONFIG: allow[0].grants: expected an array, found "*"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["gg"]\ncaller = { uid = 5 }',
            'CONFIG: allow[0].grants: expected a grant of this configuration (g) or a glob, found "gg"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = []',
            "CONFIG: allow[0].actions: expected one or more of get, status, refresh, revoke, login, admin, found an "
            "empty array",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = ["get", "renew"]',
            "CONFIG: allow[0].actions[1]: expected one of get, status, refresh, revoke, login, admin, found \"renew\"",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\n[[allow]]\ngrant = ["*"]',
            "CONFIG: allow[1].grant: unknown key; did you mean grants?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message


def test_a_file_that_is_not_there_or_is_no_toml_says_so(main: Path) -> None:
    missing = "CONFIG: there is no such file; name one with --config FILE, or make one: brokerctl add"
    assert error_of(main) == missing
    assert error_of(main, "[daemon\n") == (
        "CONFIG: this is not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"
    )
    main.write_bytes(b'[daemon]\nsocket = "\xff"')
    assert error_of(main).startswith("CONFIG: this is not TOML: ")
    main.unlink()
    main.mkdir()
    assert error_of(main) == "CONFIG: cannot be read: Is a directory"


# Secrets in the file


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        '{ file = "/s", env = "S" }',
        '{ file = "/s", command = ["/bin/pass"] }',
        '{ file = "/s", credential = "c", env = "S", command = ["/c"] }',
    ],
)
def test_a_secret_has_exactly_one_source(main: Path, written: str) -> None:
    said = [name for name in ("file", "credential", "env", "command") if f"{name} =" in written]
    assert error_of(main, GRANT.replace('{ file = "/s" }', written)) == (
        "CONFIG: grants.g.credentials.api_secret: expected exactly one of file, credential, env, command; found "
        f'{" and ".join(said) or "none"}: write credentials.api_secret = {{ file = "…" }}'
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('""', "an empty secret"),
        ("5", "expected text, or a table with one of file, credential, env, command, found a number"),
        ('["x"]', "expected text, or a table with one of file, credential, env, command, found an array"),
        ('{ file = "s" }', '.file: expected an absolute path, found text'),
        ('{ fil = "/s" }', ".fil: unknown key; did you mean file?"),
        ('{ command = "pass x" }', ".command: expected an array or nothing, found text"),
        ('{ command = ["pass"] }', ".command: expected a command whose program is an absolute path, found an array"),
        (
            "{ command = [] }",
            ".command: expected a command whose program is an absolute path, found an empty array",
        ),
        ('{ credential = "../x" }', '.credential: expected the name of a systemd credential, found text'),
        ('{ credential = ".." }', '.credential: expected the name of a systemd credential, found text'),
        ('{ passphrase = true }', ".passphrase: unknown key; known here: command, credential, env, file"),
    ],
)  # fmt: skip
def test_a_mistaken_secret_is_told_without_its_value(main: Path, written: str, message: str) -> None:
    found = error_of(main, GRANT.replace('{ file = "/s" }', written))
    joined = message if message.startswith(".") else f": {message}"
    assert found == f"CONFIG: grants.g.credentials.api_secret{joined}"


@pytest.mark.parametrize(
    "text",
    [
        GRANT.replace('{ file = "/s" }', '["hunter2"]'),
        GRANT.replace('{ file = "/s" }', '{ text = "hunter2" }'),
        GRANT.replace('{ file = "/s" }', '{ file = ["hunter2"] }'),
        GRANT.replace('{ file = "/s" }', '{ command = "echo hunter2" }'),
        GRANT.replace('{ file = "/s" }', '{ command = ["echo", "hunter2"] }'),
        GRANT.replace('{ api_key = "k-1", api_secret = { file = "/s" } }', '"hunter2"'),
        GRANT.replace('{ api_key = "k-1", api_secret = { file = "/s" } }', '["hunter2"]'),
        IX.replace("https://", "https://me:hunter2@"),
        IX + 'proxy = ["http://me:hunter2@proxy"]',
        IX.replace("/v2", "/v2?key=hunter2"),
        '[daemon]\nkey = { passphrase = "hunter2" }',
        '[daemon]\nkey = "brokerd-key-1:hunter2"',
        '[daemon]\nkey = { text = "hunter2" }',
        "[daemon]\nkey = { file = hunter2 }",
        'api_secret = "hunter2',
        GRANT + 'credentials = "hunter2"',
    ],
)
def test_no_mistake_shows_a_secret(main: Path, text: str) -> None:
    assert "hunter2" not in error_of(main, text)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o664])
def test_a_file_with_a_secret_in_it_that_everybody_can_read_is_refused(main: Path, mode: int) -> None:
    text = GRANT.replace('{ file = "/s" }', '"hunter2"')
    write(main, text, mode)
    assert error_of(main) == (
        "CONFIG: grants.g.credentials.api_key: a secret stands in a file that everybody can read; chmod o-r CONFIG"
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_file_with_a_secret_in_it_that_others_cannot_read_is_taken(main: Path, mode: int) -> None:
    write(main, GRANT.replace('{ file = "/s" }', '"hunter2"'), mode)
    assert load(main).grants["g"].credentials["api_secret"] == SecretSource(text=Secret("hunter2"))


def test_a_file_that_names_secrets_only_by_their_sources_may_be_read_by_all(main: Path) -> None:
    text = f'{CORP}[grants.g]\nprovider = "corp"\ngrant_type = "client_credentials"\n'
    write(main, text + 'credentials = { client_id = "public", client_secret = { env = "S" } }', 0o644)
    assert "g" in load(main).grants


def test_it_is_the_file_with_the_secret_whose_mode_counts(main: Path) -> None:
    write(main, IX, 0o644)
    inline = '[grants.g]\nprovider = "ix"\ncredentials = { api_key = "k", api_secret = "hunter2" }'
    write(main.parent / "conf.d" / "g.toml", inline, 0o600)
    assert "g" in load(main).grants
    (main.parent / "conf.d" / "g.toml").chmod(0o644)
    assert "chmod o-r DIR/conf.d/g.toml" in error_of(main)


def test_a_proxy_with_a_password_is_a_secret_in_the_file(main: Path) -> None:
    write(main, IX + 'proxy = "http://me:hunter2@proxy.example:3128"', 0o644)
    assert error_of(main) == (
        "CONFIG: providers.ix.proxy: a secret stands in a file that everybody can read; chmod o-r CONFIG"
    )
    main.chmod(0o600)
    assert "hunter2" not in repr(load(main))


def test_no_secret_is_in_the_repr_of_a_configuration(main: Path) -> None:
    assert "hunter2" not in repr(loaded(main, GRANT.replace('{ file = "/s" }', '"hunter2"')))


# conf.d, and recipes beside the configuration


def test_the_files_of_conf_d_are_joined_in_order(main: Path) -> None:
    conf_d = main.parent / "conf.d"
    write(main, IX + '[daemon]\nsocket = "/run/a.sock"')
    write(conf_d / "20-rules.toml", '[[allow]]\ngrants = ["h"]\ncaller = { uid = 2 }')
    write(
        conf_d / "10-grants.toml",
        f'[grants.g]\nprovider = "ix"\n{SECRETS}[[allow]]\ngrants = ["g"]\ncaller = {{ uid = 1 }}',
    )
    write(conf_d / "30-more.toml", f'[grants.h]\nprovider = "ix"\n{SECRETS}[daemon]\nstate_dir = "/var/lib/b"')
    write(conf_d / "note.txt", "this is no TOML")
    found = load(main)
    assert sorted(found.grants) == ["g", "h"]
    assert [rule.grants for rule in found.rules] == [("g",), ("h",)]
    assert (found.daemon.socket, found.daemon.state_dir) == ("/run/a.sock", "/var/lib/b")


def test_a_conf_d_that_cannot_be_looked_into_takes_nothing_away(main: Path) -> None:
    write(main, IX)
    (main.parent / "conf.d").symlink_to("conf.d")  # as one without permission would be to anybody but root
    assert error_of(main) == "DIR/conf.d: cannot be read: Too many levels of symbolic links"


def test_a_mistake_in_conf_d_names_that_file(main: Path) -> None:
    write(main, IX)
    write(main.parent / "conf.d" / "g.toml", '[grants.g]\nprovider = "ix"\nscope = "repo"')
    assert error_of(main) == 'DIR/conf.d/g.toml: grants.g.scope: expected an array, found "repo"'
    write(main.parent / "conf.d" / "g.toml", '[[allow]]\ngrants = ["*"]')
    assert error_of(main) == "DIR/conf.d/g.toml: allow[0].caller: this key is required and missing"
    write(main.parent / "conf.d" / "g.toml", "[daemon]\nsocket = 5")
    assert error_of(main) == "DIR/conf.d/g.toml: daemon.socket: expected text or nothing, found 5"
    write(main.parent / "conf.d" / "g.toml", "x = [")
    assert error_of(main).startswith("DIR/conf.d/g.toml: this is not TOML: ")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (IX, IX, "providers.ix: stands in CONFIG too; keep one of them"),
        (GRANT, '[grants.g]\nprovider = "ix"', "grants.g: stands in CONFIG too; keep one of them"),
        (
            '[daemon]\nsocket = "/a"',
            '[daemon]\nsocket = "/a"',
            "daemon.socket: stands in another file too; keep one of them",
        ),
    ],
)
def test_a_name_that_stands_in_two_files_is_refused(main: Path, first: str, second: str, message: str) -> None:
    write(main, first)
    write(main.parent / "conf.d" / "more.toml", second)
    assert error_of(main) == f"DIR/conf.d/more.toml: {message}"


def test_a_name_that_stands_twice_in_one_file_is_no_toml(main: Path) -> None:
    assert error_of(main, IX + IX).startswith("CONFIG: this is not TOML: Cannot declare ('providers', 'ix') twice")


MINE = """
credentials = ["pin"]
settings    = ["tenant"]
[[issue]]
request = "POST /pin/{tenant}"
json    = { pin = "{pin}" }
[answer]
access_token = "token"
"""
MY_GRANT = """
[providers.mine]
dialect  = "mine"
base_url = "https://mine.example"
settings = { tenant = "t-1" }
[grants.g]
provider    = "mine"
credentials = { pin = { file = "/s" } }
"""


def test_a_recipe_beside_the_configuration_needs_no_python(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE)
    dialect = loaded(main, MY_GRANT).grants["g"].provider.dialect
    assert isinstance(dialect, RecipeDialect)
    assert dialect.recipe.credentials == ("pin",)
    assert dialect.settings == {"tenant": "t-1"}


def test_a_recipe_of_the_operator_wins_over_the_one_that_came_with_brokerd(main: Path) -> None:
    write(main.parent / "recipes" / "ix-api.toml", MINE)
    dialect = loaded(main, IX).providers["ix"].dialect
    assert isinstance(dialect, RecipeDialect)
    assert dialect.recipe.credentials == ("pin",)


def test_a_mistake_in_a_recipe_names_the_recipes_file(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE.replace("{pin}", "{pon}"))
    known = "access_token, access_token.id, audience, pin, refresh_token, refresh_token.id, resource, scope, tenant"
    assert error_of(main, MY_GRANT) == (
        f"DIR/recipes/mine.toml: issue[0].json: {{pon}} is declared nowhere; known: {known}"
    )
    write(main.parent / "recipes" / "mine.toml", "x = [")
    assert error_of(main, MY_GRANT).startswith("DIR/recipes/mine.toml: this is not TOML: ")


def test_a_recipe_that_is_not_there_is_told_all_that_are(main: Path) -> None:
    write(main.parent / "recipes" / "other.toml", MINE)
    known = DIALECTS.replace(" simplejwt", " other, simplejwt")
    assert error_of(main, MY_GRANT) == f'CONFIG: providers.mine.dialect: expected one of {known}, found "mine"'


def test_a_grant_lacks_what_its_recipe_needs(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE)
    without = MY_GRANT.replace('credentials = { pin = { file = "/s" } }', "")
    assert error_of(main, without) == "CONFIG: grants.g.credentials: mine cannot issue a token without pin"


# brokerd --check


def checked(main: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brokerd.daemon", "--config", str(main), "--check"]
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)


def complete(main: Path) -> str:
    """A configuration whose key and secrets are there."""
    keys.create(main.parent / "key")
    write(main.parent / "secret", "hunter2\n")
    daemon = f'[daemon]\nkey = {{ file = "{main.parent}/key" }}\nstate_dir = "{main.parent}/state"\n'
    grant = GRANT.replace('"/s"', f'"{main.parent}/secret"')
    return f'{daemon}{grant}[[allow]]\ngrants = ["*"]\ncaller = {{ uid = 5 }}'


def test_check_says_that_a_configuration_is_right_and_touches_nothing(main: Path) -> None:
    write(main, complete(main))
    before = sorted(main.parent.iterdir())
    done = checked(main)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{main}: the configuration is right: 1 provider, 1 grant, 1 rule\n"
    assert sorted(main.parent.iterdir()) == before


def test_check_names_a_secret_that_is_most_likely_mistaken(main: Path) -> None:
    write(main, complete(main))
    write(main.parent / "secret", "\ufeffhunter2\n\n")
    done = checked(main)
    assert (done.returncode, done.stdout.count("is right")) == (0, 1)
    assert re.fullmatch(
        rf"brokerd: warning: {main}:\d+: grants.g.credentials.api_secret: {main.parent}/secret has a byte order mark "
        r"\(BOM\) at its beginning and a line break at its end, which is sent as a part of the secret; if it is none, "
        "write the secret without it\n",
        done.stderr,
    )


def test_check_says_in_one_line_what_is_wrong(main: Path) -> None:
    write(main, GRANT + 'scope = "repo"')
    keys.create(main.with_name("key"))
    done = checked(main)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'brokerd: {main}:8: grants.g.scope: expected an array, found "repo"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("/secret", "/nowhere"),
            "grants.g.credentials.api_secret: DIR/nowhere: No such file or directory; "
            "write the secret there, in a file that only brokerd can read",
        ),
        (
            ('/key"', '/nowhere"'),
            "daemon.key: there is no key at DIR/nowhere; put the store's own key there, "
            "or for a new store make one with: brokerctl keygen DIR/nowhere",
        ),
        (
            ('/key"', '/secret"'),
            'daemon.key: expected one line "brokerd-key-1:" and 32 bytes in base64, found something else; make a key '
            "with: brokerctl keygen FILE",
        ),
        (("dialect  =", 'proxy = "ftp://x"\ndialect  ='), "providers.ix: "),
    ],
    ids=["no secret", "no key", "no key in it", "no proxy"],
)
def test_check_looks_at_what_the_configuration_names(main: Path, change: tuple[str, str], message: str) -> None:
    write(main, complete(main).replace(*change))
    with pytest.raises(ConfigError) as caught:
        check_configuration(str(main))
    found = str(caught.value).replace(str(main), "CONFIG").replace(str(main.parent), "DIR")
    assert found.startswith(f"CONFIG: {message}")
    assert "hunter2" not in found


@pytest.mark.parametrize("name", ["brokerd.toml", "", "conf.d", "conf.d/more.toml", "recipes", "recipes/mine.toml"])
def test_what_everybody_could_write_is_not_believed(main: Path, name: str) -> None:
    write(main.parent / "conf.d" / "more.toml", "")
    recipe = BUILT_IN_RECIPES / "ix-api.toml"
    write(main.parent / "recipes" / "mine.toml", recipe.read_text())
    provider = '[providers.mine]\ndialect = "mine"\nbase_url = "https://x.example"\n'
    assert loaded(main, provider).providers
    path = main.parent / name
    # Also where only its owner could remove it: a file is soon added. The mode of a place like /tmp is not ours.
    instead = "put it into a directory that only its owner can change"
    chmod = f"chmod o-w {path}"
    for mode, remedy in ((0o777, chmod), (0o1777, instead)) if path.is_dir() else ((0o606, chmod),):
        path.chmod(mode)
        words = f"{path} can be written by everybody on this machine; {remedy}"
        with pytest.raises(ConfigError, match=re.escape(words)):
            load(main)
