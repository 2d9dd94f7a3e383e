# New configuration files: all or none, never over an existing file, and not more readable than the main file.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.edge.files.drop_in import CreatedFiles


@pytest.fixture
def main(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "brokerd.toml"
    path.touch()
    return path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("main_mode", "file", "secret"), [(0o644, 0o644, 0o640), (0o640, 0o640, 0o640), (0o600, 0o600, 0o600)]
)
def test_files_are_as_open_as_the_main_one_and_secrets_never_to_everybody(
    main: Path, main_mode: int, file: int, secret: int
) -> None:
    main.chmod(main_mode)
    texts = {main.parent / "secrets" / "a": "test-only", main.parent / "conf.d" / "a.toml": "[x]"}
    CreatedFiles().create(texts, main, private=frozenset({main.parent / "secrets" / "a"}))
    assert [mode(path) for path in texts] == [secret, file]
    assert [mode(path.parent) for path in texts] == [0o750, 0o755]
    assert [path.read_text() for path in texts] == ["test-only", "[x]"]


def test_where_one_cannot_be_made_none_is(main: Path) -> None:
    there = main.parent / "conf.d" / "a.toml"
    there.parent.mkdir()
    there.write_text("mine")
    with pytest.raises(FileExistsError):
        CreatedFiles().create({main.parent / "secrets" / "a": "test-only", there: "[x]"}, main, private=frozenset())
    assert there.read_text() == "mine"
    assert sorted(path.name for path in main.parent.iterdir()) == ["brokerd.toml", "conf.d"]


def test_a_link_that_leads_nowhere_is_not_followed(main: Path) -> None:
    (main.parent / "a.toml").symlink_to(main.parent / "elsewhere")
    with pytest.raises(FileExistsError):
        CreatedFiles().create({main.parent / "a.toml": "[x]"}, main, private=frozenset())
    assert not (main.parent / "elsewhere").exists()


def test_what_was_made_can_be_taken_away_and_nothing_else(main: Path) -> None:
    made = CreatedFiles()
    made.create({main.parent / "secrets" / "a": "test-only"}, main, private=frozenset())
    (main.parent / "secrets" / "b").touch()
    made.undo()
    assert [path.name for path in (main.parent / "secrets").iterdir()] == ["b"]
