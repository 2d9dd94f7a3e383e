# Where a secret comes from; a mistake is told without its value.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.core.secret import Secret, SecretSource
from tests.unit.config.files import (
    GRANT,
    IX,
    error_of,
    loaded,
)


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
        "CONFIG: grants.g.credentials.api_secret: expected exactly one of file, credential, env, command, grant; found "
        f'{" and ".join(said) or "none"}: write credentials.api_secret = {{ file = "…" }}'
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('""', 'expected a secret, found ""'),
        ("5", "expected text, or a table with one of file, credential, env, command, grant, found a number"),
        ('["x"]', "expected text, or a table with one of file, credential, env, command, grant, found an array"),
        ('{ file = "s" }', '.file: expected an absolute path, found text'),
        ('{ fil = "/s" }', ".fil: unknown key; did you mean file?"),
        ('{ command = "pass x" }', ".command: expected an array, found text"),
        ('{ command = ["pass"] }', ".command: expected a command whose program is an absolute path, found an array"),
        (
            "{ command = [] }",
            ".command: expected a command whose program is an absolute path, found an empty array",
        ),
        ('{ credential = "../x" }', '.credential: expected the name of a systemd credential, found text'),
        ('{ credential = ".." }', '.credential: expected the name of a systemd credential, found text'),
        ('{ passphrase = true }', ".passphrase: unknown key; known here: command, credential, env, field, file, grant"),
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


def test_no_secret_is_in_the_repr_of_a_configuration(main: Path) -> None:
    assert "hunter2" not in repr(loaded(main, GRANT.replace('{ file = "/s" }', '"hunter2"')))
