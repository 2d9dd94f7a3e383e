# What a person who follows an exchange sees of its messages: an allow-list, and no secret in what is allowed.
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.steps import Request, Response
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.shown_messages import HARMLESS, KNOWN, answer_shown, request_shown, url_shown

NOW = Moment(1.0, 1.0, "boot")
REFRESH = Secret("test-only-refresh-5f1c77")
FORM = (("Content-Type", "application/x-www-form-urlencoded"), ("X-Api-Key", "test-only-key"))


def sent(body: bytes, url: str = "https://idp.example/token", *secrets: Secret, places: str = "") -> Request:
    return Request("POST", url, FORM, body, secrets=secrets or (REFRESH,), secret_places=frozenset(places.split()))


def answer(body: object, *headers: tuple[str, str]) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(200, (("content-type", "application/json"), *headers), data, NOW, NOW)


def shown_fields(body: object, *known: Secret) -> object:
    return answer_shown(answer(body), sent(b"", "https://idp.example/token", *known), None)["fields"]


def test_of_a_request_names_are_shown_and_harmless_values() -> None:
    body = f"grant_type=refresh_token&refresh_token={REFRESH.reveal()}&client_id=app&api_key=abc".encode()
    found = request_shown(sent(body))
    assert found["fields"] == {
        "grant_type": "refresh_token",
        "refresh_token": "(hidden, 24 characters)",
        "client_id": "(hidden)",
        "api_key": "(hidden)",
    }
    assert (found["headers"], found["bytes"]) == (["Content-Type", "X-Api-Key"], len(body))


def test_how_long_a_short_secret_is_stays_hidden() -> None:
    assert shown_fields({"access_token": "x" * 19, "id_token": "x" * 20, "token": ""}) == {
        "access_token": "(hidden)",
        "id_token": "(hidden, 20 characters)",
        "token": "(empty)",
    }


def test_of_an_answer_names_that_are_not_known_are_counted() -> None:
    found = answer_shown(answer({"expires_in": 600, "test-only-secret": 1, "Credentials": {"a": "b"}}), sent(b""), None)
    assert found["fields"] == {"expires_in": "600", "Credentials": "(hidden)"}
    assert found["more_fields"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("error_description", "no such token: test-only-refresh-5f1c77"),
        ("error_description", "dGVzdC1vbmx5LXJlZnJlc2gtNWYxYzc3"),
        ("scope", ["read", "test-only-refresh-5f1c77"]),
        ("token_type", "test-only-refresh-5f1c77"),
        ("error_description", "your new token is new-4711-abc"),
        ("expires_in", "new-4711-abc"),
    ],
)
def test_an_answer_that_echoes_a_secret_in_a_harmless_field_shows_none(name: str, value: object) -> None:
    said = json.dumps(shown_fields({"access_token": "new-4711-abc", name: value}, REFRESH))
    assert "***" in said
    assert not any(secret in said for secret in (REFRESH.reveal(), "new-4711-abc", "dGVzdC1vbmx5LXJlZnJl"))


def test_an_id_and_a_header_that_repeat_a_token_of_the_answer_are_hidden() -> None:
    found = answer_shown(
        answer({"access_token": "new-4711-abc"}, ("retry-after", "new-4711-abc")), sent(b""), "new-4711-abc"
    )
    assert "new-4711-abc" not in json.dumps(found)
    assert answer_shown(answer({}), sent(b""), "theirs-1")["provider_request_id"] == "theirs-1"


def test_a_url_is_shown_without_the_values_of_its_query_and_without_secrets_in_its_path() -> None:
    url = f"https://idp.example/v1/{REFRESH.reveal()}/renew?key=abc&grant_type=x&{REFRESH.reveal()}=1"
    assert url_shown(sent(b"", url)) == (
        "https://idp.example/v1/(hidden)/renew?key=(hidden)&grant_type=x&(hidden)=(hidden)"
    )
    assert url_shown(sent(b"", f"https://{REFRESH.reveal()}.example/")) == "https://(hidden)/"
    assert url_shown(sent(b"", "https://idp.example/realms/oauth2/protocol/openid-connect/token")).endswith("/token")


@pytest.mark.parametrize("body", [b"test-only-refresh-5f1c77", b'["test-only-refresh-5f1c77"]', b"<html>", b"\xff\xfe"])
def test_a_body_of_another_form_shows_nothing(body: bytes) -> None:
    assert request_shown(sent(body))["fields"] == {}
    assert answer_shown(answer(body), sent(b""), None)["fields"] == {}


def test_nothing_is_shown_of_a_message_with_very_many_parts() -> None:
    assert shown_fields({"error": "x", "data": ["abcd"] * 64}) == {}


@given(st.dictionaries(st.sampled_from(sorted(KNOWN - HARMLESS)), st.text("abcdef0123456789", min_size=6), max_size=5))
def test_whatever_is_hidden_is_in_no_other_field(values: dict[str, str]) -> None:
    echo = {**values, "error_description": " / ".join(values.values())}
    said = json.dumps(shown_fields(echo))
    assert [each for each in values.values() if each in said] == []


def test_what_a_recipe_takes_is_hidden_wherever_it_is() -> None:
    request = sent(b"", places="message header:date")
    shown = answer_shown(answer({"message": "tok-4711-abc", "title": "is tok-4711-abc"}), request, None)["fields"]
    assert shown == {"message": "(hidden)", "title": "is ***"}
    found = answer_shown(answer({}, ("date", "4711abc"), ("retry-after", "4711abc")), request, None)
    assert found["headers"] == {"content-type": "application/json", "date": "(hidden)", "retry-after": "(hidden)"}
