# Where brokerd looks for its key when the configuration names none, and what --check can look at outside of a unit.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.core.secret import SecretSource
from brokerd.edge.store import key_file
from brokerd.setup import installation
from brokerd.setup.check import check_configuration
from brokerd.setup.installation import CREDENTIAL, key_sources


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(installation, "SEALED", (str(tmp_path / "credstore.encrypted"),))
    path = tmp_path / "etc" / "brokerd.toml"
    path.parent.mkdir()
    path.touch()
    return path


def folder(path: Path, *names: str) -> str:
    path.mkdir()
    for name in names:
        key_file.create(path / name)
    return str(path)


def place(main: Path) -> SecretSource:
    return key_sources(load(main))[0]


def test_it_lies_beside_the_configuration(main: Path) -> None:
    assert place(main) == SecretSource(file=str(main.with_name("key")))


def test_the_credential_that_systemd_gives_the_unit_wins(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file.create(main.with_name("key"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder(main.parent / "given", CREDENTIAL))
    assert place(main) == SecretSource(credential=CREDENTIAL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder(main.parent / "others", "reports-secret"))
    assert place(main) == SecretSource(file=str(main.with_name("key")))


def test_a_key_that_the_configuration_names_is_no_other(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder(main.parent / "given", CREDENTIAL))
    main.write_text('[daemon]\nkey = { file = "/etc/brokerd/key" }')
    assert place(main) == SecretSource(file="/etc/brokerd/key")
    main.write_text("[daemon]\nkey = { passphrase = true }")
    assert key_sources(load(main)) == ()


def test_a_file_beside_the_configuration_is_not_given_up_for_a_credential_of_another_unit(main: Path) -> None:
    """Outside of a unit: a user's brokerd on a machine that has one of the system's as well."""
    key_file.create(main.with_name("key"))
    folder(main.parent.parent / "credstore.encrypted", CREDENTIAL)
    assert place(main) == SecretSource(file=str(main.with_name("key")))


def test_check_leaves_out_what_systemd_gives_to_the_unit_alone(main: Path) -> None:
    folder(main.parent.parent / "credstore.encrypted", CREDENTIAL)
    assert "is right" in check_configuration(str(main))
    main.write_text('[daemon]\nkey = { credential = "another" }')
    assert "is right" in check_configuration(str(main))
