# The metadata server of Google: what is answered, and what is refused.
from __future__ import annotations

import json

import pytest

from brokerd.core.metadata.answers import Asked, Given, NotGiven
from brokerd.core.metadata.google import FLAVOR, Google

SERVER = Google("gcp", "app@project.iam.example", "project-1", ("read", "write"))
ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"


def asked(path: str, method: str = "GET", *, flavor: str | None = "Google", **query: str) -> Asked:
    return Asked(method, path, query, {} if flavor is None else {"metadata-flavor": flavor})


def test_a_token_has_the_three_values() -> None:
    for account in ("default", "app@project.iam.example"):
        request = asked(f"/computeMetadata/v1/instance/service-accounts/{account}/token", scopes="read")
        assert SERVER.check(request) is None
        answer = SERVER.answer(request, Given("T", 160.9, {}), 100.0)
        assert json.loads(answer.body) == {"access_token": "T", "expires_in": 60, "token_type": "Bearer"}
        assert (answer.content_type, answer.headers["Metadata-Flavor"]) == ("application/json", "Google")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "computeMetadata/\n"),
        (f"{ACCOUNT}/email", "app@project.iam.example"),
        (f"{ACCOUNT}/scopes", "read\nwrite\n"),
        (f"{ACCOUNT}/aliases", "default\n"),
        (f"{ACCOUNT}/", "aliases\nemail\nidentity\nscopes\ntoken\n"),
        ("/computeMetadata/v1/project/project-id", "project-1"),
        ("/computeMetadata/v1/universe/universe-domain", "googleapis.com"),
        ("/computeMetadata/v1/instance/service-accounts/", "default/\napp@project.iam.example/\n"),
    ],
)
def test_what_needs_no_token(path: str, found: str) -> None:
    answer = SERVER.check(asked(path))
    assert answer is not None
    assert answer.body.decode() == found
    assert answer.headers == FLAVOR


def test_the_account_as_a_whole() -> None:
    answer = SERVER.check(asked(f"{ACCOUNT}/", recursive="true"))
    assert answer is not None
    whole = {"aliases": ["default"], "email": "app@project.iam.example", "scopes": ["read", "write"]}
    assert json.loads(answer.body) == whole


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(f"{ACCOUNT}/token", flavor=None), 403),
        (asked(f"{ACCOUNT}/token", flavor="google"), 403),
        (asked(f"{ACCOUNT}/token", "POST"), 405),
        (asked(f"{ACCOUNT}/other"), 404),
        (asked("/computeMetadata/v1/instance/service-accounts/other@x/token"), 404),
        (asked("/computeMetadata/v1beta1/instance/service-accounts/default/token"), 404),
    ],
)
def test_what_is_refused(request_: Asked, status: int) -> None:
    with pytest.raises(NotGiven) as refused:
        SERVER.check(request_)
    assert refused.value.status == status
    assert refused.value.headers["Metadata-Flavor"] == "Google"


def test_an_identity_token_is_given_where_the_grant_keeps_one() -> None:
    request = asked(f"{ACCOUNT}/identity", audience="https://api.example")
    assert SERVER.answer(request, Given("T", None, {"id_token": "ID"}), 0.0).body == b"ID"
    with pytest.raises(NotGiven, match="keeps no id_token"):
        SERVER.answer(request, Given("T", None, {}), 0.0)
