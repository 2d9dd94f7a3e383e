# Whatever a value holds, it stays in its place of the request: path, header, form, JSON, query.
from __future__ import annotations

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.steps import Request
from tests.unit.dialects.exchange_driver import BASE, begin, meaning, sent, view, words
from tests.unit.dialects.recipe.built_in_grants import CLICK2MAIL, CLIENT, IX, OCCAM, TREEZOR, revoking

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)

dots = st.sampled_from(
    [".", "..", "...", "../..", "%2e%2e", "a/../../b", "?x=1", "#x", "a\r\nb", "\\..\\", " ", ";x", "//evil"]
)


@given(any_text | dots)
def test_a_token_id_cannot_leave_its_segment(identifier: str) -> None:
    seen = view(CLIENT, access="short-1", refresh="long-1", access_id=identifier)
    begun = begin(revoking(CLICK2MAIL, seen, "access"))
    if not isinstance(begun, Request):
        assert identifier in (".", "..")
        assert meaning(begun) == "misconfigured"
        return
    url = begun.url
    assert url.isascii()
    assert url.isprintable()
    start, end = f"{BASE}/auth/tokens/", "/revoke"
    assert url.startswith(start)
    assert url.endswith(end)
    segment = url.removeprefix(start).removesuffix(end)
    assert not set(segment) & set("/?#\\ ;")
    assert segment not in (".", "..")
    assert unquote(segment) == identifier


@given(any_text)
def test_a_header_cannot_be_followed_by_another_one(text: str) -> None:
    begun = begin(CLICK2MAIL.renew(view(CLIENT, refresh=text)))
    if isinstance(begun, Request):
        assert dict(begun.headers)["Authorization"] == f"Bearer {text}"
        assert not any(set(value) & set("\r\n\0") for _, value in begun.headers)
    else:
        assert meaning(begun) == "misconfigured"
        assert set(text) & set("\r\n\0")
        assert len(text) < 4 or text not in words(begun)


@given(any_text, any_text)
def test_a_form_carries_any_text_and_nothing_more(user: str, password: str) -> None:
    seen = view({"username": user, "password": password})
    assert sent(OCCAM.issue(seen)).form == {"grant_type": "password", "username": user, "password": password}


@given(any_text, any_text)
def test_json_carries_any_text_and_nothing_more(key: str, secret: str) -> None:
    assert sent(IX.issue(view({"api_key": key, "api_secret": secret}))).json == {"api_key": key, "api_secret": secret}


@given(any_text)
def test_a_query_carries_any_text_and_nothing_more(key: str) -> None:
    request = sent(OCCAM.issue(view({"key": key})))
    assert request.query == {"key": key}
    assert request.line == f"GET {BASE}/auth/access-token"


@given(any_text | st.sampled_from(["\r\n--x--\r\n", "--", 'a"; name="b', "\r\n\r\n"]), any_text)
def test_a_multipart_form_carries_any_text_and_nothing_more(user: str, password: str) -> None:
    seen = view({**CLIENT, "username": user, "password": password})
    request = sent(TREEZOR.issue(seen)).request
    boundary = dict(request.headers)["Content-Type"].partition("boundary=")[2]
    parts = request.body.decode().split(f"--{boundary}")
    assert parts[0] == ""
    assert parts[-1] == "--\r\n"
    found = {}
    for part in parts[1:-1]:
        head, _, value = part.removeprefix("\r\n").removesuffix("\r\n").partition("\r\n\r\n")
        found[head.removeprefix('Content-Disposition: form-data; name="').removesuffix('"')] = value
    assert found == {"grant_type": "password", **CLIENT, "username": user, "password": password}
