# FILE.toml of brokerctl files: the examples are right, defaults are as documented, what is wrong is named.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.token_files import OnChange, Source, TokenFile, read
from brokerd.core.files.contents import Contents
from brokerd.core.validation import ConfigError, as_one

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "files").glob("*.toml"))
BEGINNING = '[[file]]\npath = "/run/x/token"\ngrant = "app"\n'


def load(path: Path) -> tuple[TokenFile, ...]:
    files, errors = read(path)
    if errors:
        raise as_one(errors)
    return files


def test_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(BEGINNING)
    assert load(tmp_path / "f.toml") == (TokenFile(Path("/run/x/token"), Source("app"), Contents()),)
    (tmp_path / "f.toml").write_text(f'{BEGINNING}group = "x"\non_change = {{ restart = "a@b.service" }}')
    (found,) = load(tmp_path / "f.toml")
    assert (found.mode, found.on_change, found.empties) == (0o440, OnChange("restart", "a@b.service"), False)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_right(path: Path) -> None:
    assert len(load(path)) >= 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('path = "/run/../etc/"', "path"),
        ('format = "yaml"', "expected one of token, header, json, env"),
        ('format = "json"\ntemplate = "{access_token}"', "a file has a format or a template"),
        ('mode = "0444"', "a mode without rights for everybody"),
        ('mode = "0460"', "no group write"),
        ('mode = "400"\nmode_ = 1', "unknown key; did you mean mode?"),
        ("scope = []", "leave the key out"),
        ('on_revoke = "keep"', "expected one of remove, empty"),
        ("on_change = {}", "expected one of reload, restart, command, found none"),
        ('on_change = { reload = "portal" }', "the full name of a unit"),
        ('on_change = { reload = "--now.service" }', "the full name of a unit"),
        ('on_change = { command = ["true"] }', "an absolute path"),
        ("on_change = { command = [] }", "an absolute path"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, line: str, words: str) -> None:
    text = BEGINNING.replace('path = "/run/x/token"', line) if line.startswith("path") else BEGINNING + line
    (tmp_path / "f.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "f.toml")
    assert words in str(error.value)


def test_two_tables_cannot_have_one_path(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(BEGINNING + BEGINNING.replace("/run/x/token", "/run/x/../x//token"))
    assert [str(each) for each in read(tmp_path / "f.toml")[1]] == [
        f"{tmp_path}/f.toml: file[1].path: is the path of file[0] too; keep one of them"
    ]


@pytest.mark.parametrize("text", ["", "[file]\npath = 1", "x = 1", "[[file]"])
def test_a_file_without_tables_says_what_is_expected(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.toml").write_text(text)
    assert read(tmp_path / "f.toml")[1]
