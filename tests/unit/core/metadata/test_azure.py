# The endpoint of Azure's App Service: what is answered, and what is refused.
from __future__ import annotations

import json

import pytest

from brokerd.core.metadata.answers import Asked, Given, NotGiven, refuse_forwarded
from brokerd.core.metadata.azure import Azure

SERVICE = Azure("graph", "https://graph.example", "the word")
QUERY = {"api-version": "2019-08-01", "resource": "https://graph.example/"}


def asked(query: dict[str, str] | None = None, method: str = "GET", header: str = "the word") -> Asked:
    return Asked(method, "/msi/token", {**QUERY, **(query or {})}, {"x-identity-header": header})


def test_a_token_ends_at_a_time_in_epoch_seconds() -> None:
    assert SERVICE.check(asked()) is None
    found = json.loads(SERVICE.answer(asked(), Given("T", 1_800_000_000.7, {}), 0.0).body)
    assert found == {
        "access_token": "T",
        "expires_on": "1800000000",
        "resource": "https://graph.example/",
        "token_type": "Bearer",
    }
    assert json.loads(SERVICE.answer(asked(), Given("T", None, {}), 100.0).body)["expires_on"] == "3700"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(header=""), 401),
        (asked(header="another"), 401),
        (asked({"resource": "https://vault.example"}), 400),
        (asked({"resource": ""}), 400),
        (asked({"api-version": "1"}), 400),
        (asked(method="POST"), 405),
    ],
)
def test_what_is_refused(request_: Asked, status: int) -> None:
    with pytest.raises(NotGiven) as refused:
        SERVICE.check(request_)
    assert refused.value.status == status
    assert "the word" not in str(refused.value)


def test_any_word_will_do_if_none_is_configured_but_not_none() -> None:
    service = Azure("graph", "https://graph.example")
    assert service.check(asked(header="x")) is None
    with pytest.raises(NotGiven):
        service.check(asked(header=""))


@pytest.mark.parametrize("name", ["x-forwarded-for", "origin", "via", "forwarded", "referer"])
def test_what_a_proxy_or_a_browser_sent_on_is_refused(name: str) -> None:
    with pytest.raises(NotGiven, match=f"found the header {name}"):
        refuse_forwarded(Asked("GET", "/", {}, {name: "x"}))
