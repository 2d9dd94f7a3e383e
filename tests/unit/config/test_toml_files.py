# The TOML files: which are refused because of what they are or who can read and write them.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.config.recipes import BUILT_IN_RECIPES
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from tests.unit.config.files import (
    A_NAME,
    CORP,
    GRANT,
    IX,
    error_of,
    loaded,
    write,
)


def test_a_file_that_is_not_there_or_is_no_toml_says_so(main: Path) -> None:
    missing = "CONFIG: there is no such file; name another with --config FILE, or create it with: brokerctl add"
    assert error_of(main) == missing
    assert error_of(main, "[daemon\n") == (
        "CONFIG: this is not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"
    )
    main.write_bytes(b'[daemon]\nsocket = "\xff"')
    assert error_of(main).startswith("CONFIG: this is not TOML: ")
    main.unlink()
    main.mkdir()
    assert error_of(main) == "CONFIG: cannot be read: Is a directory"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o664])
def test_a_file_with_a_secret_in_it_that_everybody_can_read_is_refused(main: Path, mode: int) -> None:
    text = GRANT.replace('{ file = "/s" }', '"hunter2"')
    write(main, text, mode)
    assert error_of(main) == (
        "CONFIG: grants.g.credentials.api_key: this file contains a secret, and everybody can read it; "
        "to fix: chmod o-r CONFIG"
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
        "CONFIG: providers.ix.proxy: this file contains a secret, and everybody can read it; to fix: chmod o-r CONFIG"
    )
    main.chmod(0o600)
    assert "hunter2" not in repr(load(main))


@pytest.mark.parametrize("name", ["brokerd.toml", "", "conf.d", "conf.d/more.toml", "recipes", "recipes/mine.toml"])
def test_what_everybody_could_write_is_not_believed(main: Path, name: str) -> None:
    write(main.parent / "conf.d" / "more.toml", "")
    recipe = BUILT_IN_RECIPES / "ix-api.toml"
    write(main.parent / "recipes" / "mine.toml", recipe.read_text())
    provider = '[providers.mine]\ndialect = "mine"\nbase_url = "https://x.example"\n'
    assert loaded(main, provider).providers
    path = main.parent / name
    # Also where only its owner could remove it: a file is soon added. The mode of a place like /tmp is not ours.
    instead = "move it to a directory that only its owner can change"
    chmod = f"chmod o-w {path}"
    for mode, remedy in ((0o777, chmod), (0o1777, instead)) if path.is_dir() else ((0o606, chmod),):
        path.chmod(mode)
        words = f"everybody on this machine can write to {path}; to fix: {remedy}"
        with pytest.raises(ConfigError, match=re.escape(words)):
            load(main)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[provider.ix]",
            "CONFIG: provider: unknown table; "
            "known: [daemon], [http], [credentials], [store], [providers.…], [grants.…], [[allow]], [[on_event]]",
        ),
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
        ("daemon = 5", "CONFIG: daemon: expected a table, found 5"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message
