# Remedies are safe to obey: whatever is wrong with a directory that others use, no finding and no error advises to
# change its mode or its owner.
from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.config.toml_files import exposure, refuse_open
from brokerd.core import file_remedies
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.doctor import files
from brokerd.edge.files import ownership
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from tests.unit.doctor.test_findings import FACTS

ROOT = Path(__file__).parents[3]
STRANGER = 4_711
CHANGES = re.compile(r"\b(chmod|chown|chgrp|rm|mv|mount|usermod -aG (?!brokerd-callers))\b")


def of_state(folder: Path) -> Iterable[str]:
    return (*ownership.faults_of_state(folder), *ownership.faults_of_state(folder, STRANGER))


def of_socket(folder: Path) -> Iterable[str]:
    below = folder / "below"
    return (
        each for where in (folder, below) for uid in (None, STRANGER) for each in ownership.faults_of_socket(where, uid)
    )


def of_configuration(folder: Path) -> Iterable[str]:
    file = folder / "brokerd.toml"
    file.touch(0o644)
    yield str(exposure(file))
    with pytest.raises(ConfigError) as caught:
        refuse_open(file)
    yield str(caught.value)


def of_secret(folder: Path) -> Iterable[str]:
    (folder / "secret").touch(0o644)
    with pytest.raises(SecretUnreadable) as caught:
        read_secret(SecretSource(file=str(folder / "secret")))
    yield str(caught.value)


def of_doctor(folder: Path) -> Iterable[str]:
    (folder / "secret").touch(0o600)
    for config in (folder / "brokerd.toml", folder / "etc" / "brokerd.toml"):
        facts = replace(FACTS, path=str(config), state=folder)
        for found in files._closed(facts, "secrets", [folder / "secret"]):
            yield found.remedy or ""


@pytest.mark.parametrize("told", [of_state, of_socket, of_configuration, of_secret, of_doctor])
@pytest.mark.parametrize("kind", ["the system's", "in the system's"])
def test_nobody_is_told_to_change_what_others_depend_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[Path], Iterable[str]], kind: str
) -> None:
    if kind == "the system's":
        monkeypatch.setattr(file_remedies, "SYSTEM", (*file_remedies.SYSTEM, str(folder.resolve())))
    elif kind == "in the system's":
        monkeypatch.setattr(file_remedies, "SHARED", file_remedies.SHARED | {str(folder.resolve())})
    folder.chmod(0o777)
    found = list(told(folder))
    assert found, "there is something to say"
    assert [each for each in found if CHANGES.search(each)] == []


def test_a_home_is_known_wherever_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o755)
    assert any("chmod 700" in each for each in ownership.faults_of_state(folder))
    monkeypatch.setattr(ownership, "_home", lambda uid: folder if uid == os.geteuid() else None)
    assert not any("chmod" in each for each in ownership.faults_of_state(folder))


def test_a_mode_or_an_owner_is_changed_by_one_remedy_alone() -> None:
    """Whoever else words such a command has not asked whether others depend on the file."""
    asks = {
        "core/file_remedies.py",
        "edge/files/ownership.py",
        "edge/files/replaced_file.py",
        "edge/files/secret_sources.py",
        "config/toml_files.py",
        "doctor/files.py",
        "doctor/helpers.py",
    }
    command = re.compile(r"(chmod|chown|chgrp) ")
    found = set()
    for file in (ROOT / "brokerd").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and command.search(node.value):
                found.add(str(file.relative_to(ROOT / "brokerd")))
    assert found <= asks
