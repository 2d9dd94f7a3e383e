# keyring with brokerd's backend: its own look-up by the entry point, and its subprocess form as pip uses it.
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brokerd_client.errors import Revoked, UnknownGrant
from brokerd_client.keyring import BrokerKeyring
from keyring.errors import KeyringError

from tests.unit.client.daemon import Daemon


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "helpers.toml"
    path.write_text('[[use]]\nurl = "https://index.example/simple/*"\ngrant = "ix"\nusername = "bot"\n')
    monkeypatch.setenv("BROKERD_HELPERS", str(path))


def keyring(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "keyring", *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


def test_a_password_is_the_token_of_the_urls_grant(daemon: Daemon, helpers: None) -> None:
    assert keyring("get", "https://index.example/simple/", "bot") == "token-of-ix"


def test_another_user_or_another_host_has_none(daemon: Daemon, helpers: None) -> None:
    assert keyring("get", "https://index.example/simple/", "other") == ""
    assert keyring("get", "https://index.example.evil.example/simple/", "bot") == ""
    assert daemon.calls == []


def test_a_user_without_a_grant_or_a_brokerd_is_left_to_other_backends(
    daemon: Daemon, helpers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(params: dict[str, Any]) -> Any:
        raise UnknownGrant("no grant ix")

    daemon.answers["get"] = unknown
    backend, address = BrokerKeyring(), ("https://index.example/simple/", "bot")
    assert backend.get_password(*address) is None
    monkeypatch.setenv("BROKERD_SOCKET", "/nowhere")
    assert backend.get_credential(*address) is None


def test_a_grant_without_a_token_is_an_error_with_brokerds_words(daemon: Daemon, helpers: None) -> None:
    def revoked(params: dict[str, Any]) -> Any:
        raise Revoked("ix was revoked")

    daemon.answers["get"] = revoked
    with pytest.raises(KeyringError, match=r"^ix was revoked$"):
        BrokerKeyring().get_password("https://index.example/simple/", "bot")
