# What doctor says of helpers.toml.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from brokerd_client import helpers

from brokerd.doctor.finding import Finding, Level
from brokerd.doctor.helpers import credential_helpers
from tests.unit.doctor.test_findings import FACTS

USE = '[[use]]\nurl = "https://git.example/*"\ngrant = "{}"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's helpers.toml, which is as it should be."""
    path = tmp_path / "helpers.toml"
    path.write_text(USE.format("git"))
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(helpers, "SYSTEM", str(path))
    monkeypatch.setenv("BROKERD_HELPERS", str(path))
    return path


def look(*grants: str) -> list[Finding]:
    configuration = cast(Any, SimpleNamespace(grants=dict.fromkeys(grants)))
    return list(credential_helpers(replace(FACTS, configuration=configuration)))


def test_a_good_file_is_counted_and_none_is_no_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = look("git")
    assert (found.level, found.found) == (Level.OK, f"{file}: addresses: 1")
    file.unlink()
    (found,) = look("git")
    assert (found.level, found.found) == (Level.PROBLEM, f"{file}: there is no such file")
    monkeypatch.delenv("BROKERD_HELPERS")
    assert look("git") == []


def test_a_grant_that_is_not_configured_is_named(file: Path) -> None:
    file.write_text(USE.format("gti"))
    (found,) = look("git")
    assert (found.level, found.found) == (Level.PROBLEM, f"{file}: the grant gti is not in {FACTS.path}")
    assert found.remedy == f"correct its name in {file}, or add the grant: brokerctl add --name gti"


def test_without_a_configuration_grants_are_not_judged(file: Path) -> None:
    assert [each.level for each in credential_helpers(FACTS)] == [Level.OK]


@pytest.mark.parametrize(
    ("mode", "text", "words", "remedy"),
    [
        (0o646, USE, "others may write to it", "make it writable for its owner only, with mode 0644"),
        (0o644, "[use", "cannot be read as TOML", "correct it: helpers.toml(5)"),
        (0o644, '[[use]]\nurl = "x"', "the key grant is missing", "correct it: helpers.toml(5)"),
    ],
)
def test_a_wrong_file_is_a_problem_with_its_remedy(file: Path, mode: int, text: str, words: str, remedy: str) -> None:
    file.write_text(text)
    file.chmod(mode)
    (found,) = look("git", "{}")
    assert found.level is Level.PROBLEM
    assert words in found.found
    assert found.remedy == remedy


def test_a_machines_file_that_others_cannot_read_is_a_warning(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    assert [each.remedy for each in look("git") if each.level is Level.WARNING] == [f"chmod o+r {file}"]
    file.chmod(0o644)
    tmp_path.chmod(0o750)
    assert [each.remedy for each in look("git") if each.level is Level.WARNING] == [f"chmod o+x {tmp_path}"]
