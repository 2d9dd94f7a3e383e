# brokerctl credential: each form that a client reads, and what it says where a token does not fit.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brokerd.ctl.commands.credential import KUBERNETES
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run

EXPIRES = "2033-05-18T03:33:20Z"


def with_fields(daemon: Daemon, **fields: str) -> None:
    daemon.answers["get"] = lambda params: {**daemon.token(params), "fields": fields}


def test_aws_prints_a_session(daemon: Daemon, within: Run) -> None:
    with_fields(daemon, access_key_id="id", secret_access_key="secret")
    done = within("credential", "aws", "ix")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "Version": 1,
        "AccessKeyId": "id",
        "SecretAccessKey": "secret",
        "SessionToken": "token-of-ix",
        "Expiration": EXPIRES,
    }


def test_aws_prints_a_key_that_never_expires(daemon: Daemon, within: Run) -> None:
    def answer(params: dict[str, Any]) -> Any:
        return {**daemon.token(params), "expires_at": None, "fields": {"access_key_id": "id"}}

    daemon.answers["get"] = answer
    found = json.loads(within("credential", "aws", "ix").stdout)
    assert found == {"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "token-of-ix"}


def test_a_token_that_is_no_aws_key_is_refused(daemon: Daemon, within: Run) -> None:
    done = within("credential", "aws", "ix")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("brokerctl: ix: its token has no field access_key_id")


@pytest.mark.parametrize("version", [None, "v1", "v1beta1"])
def test_kubernetes_answers_in_the_version_that_is_asked_for(
    daemon: Daemon, within: Run, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    monkeypatch.delenv("KUBERNETES_EXEC_INFO", raising=False)
    if version:
        asked = {"kind": "ExecCredential", "apiVersion": f"{KUBERNETES}/{version}", "spec": {"interactive": False}}
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps(asked))
    assert json.loads(within("credential", "kubernetes", "ix").stdout) == {
        "apiVersion": f"{KUBERNETES}/{version or 'v1'}",
        "kind": "ExecCredential",
        "status": {"token": "token-of-ix", "expirationTimestamp": EXPIRES},
    }


@pytest.mark.parametrize("asked", ["", "[]", "{}", '{"apiVersion": "client.authentication.k8s.io/v1alpha1"}', "x"])
def test_kubernetes_refuses_another_version_and_says_which_it_knows(
    daemon: Daemon, within: Run, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("KUBERNETES_EXEC_INFO", asked)
    done = within("credential", "kubernetes", "ix")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"apiVersion {KUBERNETES}/v1 or {KUBERNETES}/v1beta1" in done.stderr


def test_headers_prints_an_object_of_texts(daemon: Daemon, within: Run) -> None:
    assert json.loads(within("credential", "headers", "ix").stdout) == {"Authorization": "Bearer token-of-ix"}


def test_bazel_asks_by_its_address_the_brokerd_that_is_meant(
    daemon: Daemon, brokerctl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers = tmp_path / "helpers.toml"
    monkeypatch.setenv("BROKERD_HELPERS", str(helpers))
    monkeypatch.setenv("BROKERD_SOCKET", "/nowhere")
    helpers.write_text('[[use]]\nurl = "https://cache.example/*"\ngrant = "ix"\n')
    words = ("--socket", str(daemon.path), "credential", "bazel", "get")
    done = brokerctl(*words, input='{"uri": "https://cache.example/x"}')
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"headers": {"Authorization": ["Bearer token-of-ix"]}, "expires": EXPIRES}
    done = brokerctl(*words, input='{"uri": "https://cache.example.evil.example/x"}')
    assert (done.returncode, done.stdout) == (0, '{"headers": {}}\n')
    assert 'expected {"uri"' in brokerctl(*words, input="x").stderr
    helpers.chmod(0o666)
    done = brokerctl(*words, input='{"uri": "https://cache.example/x"}')
    assert (done.returncode, done.stdout) == (2, "")
    assert "others may write to it" in done.stderr


@pytest.mark.parametrize("form", ["aws", "headers", "kubernetes"])
def test_a_grant_without_a_token_ends_as_get_does(daemon: Daemon, within: Run, form: str) -> None:
    done = within("credential", form, "nope")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("brokerctl: no grant nope")
