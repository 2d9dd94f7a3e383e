# docker-credential-brokerd: what docker-credential-helpers' protocol has on stdin and stdout.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from brokerd_client.credentials import docker
from brokerd_client.errors import Revoked

from tests.unit.client.credentials.conftest import Run
from tests.unit.client.daemon import Daemon


@pytest.mark.parametrize(
    ("name", "user", "grant"),
    [
        ("git.example", "oauth2", "git"),  # a table for the whole host is for its registry too
        ("registry.example:5000", "bot", "images"),
        ("https://registry.example:5000", "bot", "images"),
        ("https://registry.example:5000/v2/team/app\n", "bot", "images"),
        ("https://index.docker.io/v1/", "oauth2", "hub"),
    ],
)
def test_get_answers_for_a_registry(daemon: Daemon, run: Run, name: str, user: str, grant: str) -> None:
    code, out, err = run(docker, name, "get")
    answer = {"ServerURL": name.strip(), "Username": user, "Secret": f"token-of-{grant}"}
    assert (code, json.loads(out), err) == (0, answer, "")


@pytest.mark.parametrize(
    "name",
    [
        *("", "registry.example", "registry.example:5001", "http://registry.example:5000", "xregistry.example:5000"),
        *("registry.example:5000.evil.example", "https://registry.example:5000@evil.example", "index.docker.io"),
        *("registry.example:5000/private", "index.example", "localhost:5000", b"\xff", "a" * 2**20 + "b"),
    ],
    ids=range(13),
)
def test_a_registry_without_a_table_gets_the_words_that_clients_know(daemon: Daemon, run: Run, name: str) -> None:
    code, out, _ = run(docker, name, "get")
    assert (code, out.splitlines()[-1][-len(docker.NOT_FOUND) :] == docker.NOT_FOUND or "bytes" in out) == (1, True)
    assert daemon.calls == []


def test_a_user_without_a_rule_is_left_to_other_helpers(daemon: Daemon, run: Run) -> None:
    assert run(docker, "nope.example", "get") == (
        1,
        f"{docker.NOT_FOUND}\n",
        "docker-credential-brokerd: no grant nope\n",
    )


def test_a_grant_without_a_token_is_told_on_stdout_and_stderr(daemon: Daemon, run: Run) -> None:
    def revoked(params: dict[str, Any]) -> Any:
        raise Revoked("git was revoked")

    daemon.answers["get"] = revoked
    words = "docker-credential-brokerd: git was revoked\n"
    assert run(docker, "git.example", "get") == (1, words, words)


def test_list_names_registries_that_get_would_answer_for(daemon: Daemon, run: Run) -> None:
    code, out, _ = run(docker, "", "list")
    assert code == 0
    found = json.loads(out)
    assert found == {
        "git.example": "oauth2",
        "registry.example:5000": "bot",
        "https://index.docker.io/v1/": "oauth2",
        "nope.example": "oauth2",
    }
    for name, user in found.items():
        if name != "nope.example":
            assert json.loads(run(docker, name, "get")[1])["Username"] == user


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('{"ServerURL": "git.example", "Username": "oauth2", "Secret": "x"}', 0, ""),
        ('{"ServerURL": "other.example", "Username": "me", "Secret": "x"}', 1, "brokerd keeps no passwords"),
        ("[]", 1, 'expected {"ServerURL"'),
        ('{"ServerURL": 1}', 1, 'expected {"ServerURL"'),
        ("nothing", 1, 'expected {"ServerURL"'),
    ],
)
def test_store_refuses_what_would_be_lost(daemon: Daemon, run: Run, text: str, code: int, words: str) -> None:
    found, out, _ = run(docker, text, "store")
    assert found == code
    assert words in out
    assert daemon.calls == []


def test_erase_does_nothing_and_version_says_which(daemon: Daemon, run: Run) -> None:
    assert run(docker, "git.example", "erase") == (0, "", "")
    assert run(docker, "", "version")[1].startswith("docker-credential-brokerd (brokerd-client) ")
    assert daemon.calls == []


def test_a_wrong_helpers_toml_is_told(daemon: Daemon, run: Run, helpers: Path) -> None:
    helpers.write_text("[use")
    code, out, _ = run(docker, "git.example", "get")
    assert code == 1
    assert f"{helpers}: cannot be read as TOML" in out
