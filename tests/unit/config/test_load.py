# What a configuration becomes, and how the files of conf.d are joined.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.core.access.policy import Action, Rule, Selector
from brokerd.core.grant.renewal import Pace
from brokerd.core.secret import Secret, SecretSource
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.recipe.dialect import RecipeDialect
from tests.unit.config.files import (
    CONTRACT,
    GRANT,
    IX,
    SECRETS,
    error_of,
    loaded,
    write,
)


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
    assert error_of(main) == "DIR/conf.d/g.toml: daemon.socket: expected text, found 5"
    write(main.parent / "conf.d" / "g.toml", "x = [")
    assert error_of(main).startswith("DIR/conf.d/g.toml: this is not TOML: ")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (IX, IX, "providers.ix: is defined in CONFIG too; keep one of them"),
        (GRANT, '[grants.g]\nprovider = "ix"', "grants.g: is defined in CONFIG too; keep one of them"),
        (
            '[daemon]\nsocket = "/a"',
            '[daemon]\nsocket = "/a"',
            "daemon.socket: is set in CONFIG too; keep one of them",
        ),
    ],
)
def test_a_name_that_stands_in_two_files_is_refused(main: Path, first: str, second: str, message: str) -> None:
    write(main, first)
    write(main.parent / "conf.d" / "more.toml", second)
    assert error_of(main) == f"DIR/conf.d/more.toml: {message}"


def test_a_name_that_stands_twice_in_one_file_is_no_toml(main: Path) -> None:
    assert error_of(main, IX + IX).startswith("CONFIG: this is not TOML: Cannot declare ('providers', 'ix') twice")
