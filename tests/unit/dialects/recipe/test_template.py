# Placeholders of a recipe: which types they keep, when a field is left out, and that no value changes the path.
from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokerd.core.exchange.steps import Request
from brokerd.core.secret import Secret
from brokerd.dialects.recipe import template
from tests.unit.dialects.exchange_driver import BASE, begin, sent, view
from tests.unit.dialects.recipe.short_recipes import GOOD, ISSUE, dialect, with_issue


def test_a_placeholder_alone_keeps_its_type_and_in_text_it_is_text() -> None:
    mine = dialect(
        with_issue(
            ISSUE,
            'json = { list = "{scope}", text = "of {scope}", deep = { many = ["{user}", "x"] }, on = true, n = 5 }',
        )
    )
    found = sent(mine.issue(view({"user": "me"}, {"scope": ["a", "b"]}))).json
    assert found == {"list": ["a", "b"], "text": "of a b", "deep": {"many": ["me", "x"]}, "on": True, "n": 5}


def test_an_optional_placeholder_leaves_its_field_out_wherever_it_stands() -> None:
    mine = dialect(
        with_issue(
            ISSUE,
            'headers = { X-Scope = "{scope?}", X-User = "{user}" }',
            'query = { scope = "{scope?}" }',
            'json = { scope = "s {scope?}", deep = { scope = "{scope?}" }, list = ["{scope?}", "x"] }',
        )
    )
    request = sent(mine.issue(view({"user": "me"})))
    assert request.headers == {"X-User": "me", "Content-Type": "application/json"}
    assert request.request.url == f"{BASE}/token"
    assert request.json == {"deep": {}, "list": ["x"]}


def test_numbers_and_booleans_are_written_in_forms_as_in_json() -> None:
    text = with_issue(ISSUE, 'form = { ttl = "{ttl}", on = "{on}" }').replace(
        "[[issue]]", 'settings = ["ttl", "on"]\n[[issue]]'
    )
    assert sent(dialect(text, ttl=3_600, on=True).issue(view({"user": "me"}))).form == {"ttl": "3600", "on": "true"}


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from([".", "..", "/", "%2e", ""])


@given(anything, anything)
@example(".", ".")
def test_no_two_placeholders_of_one_segment_make_a_way_upwards(one: str, other: str) -> None:
    """ "." and "." are harmless alone; together they are a step up."""
    text = GOOD.replace('"POST /token"', '"POST /a/{user}{password}/b"')
    begun = begin(dialect(text).issue(view({"user": one, "password": other})))
    if isinstance(begun, Request):
        segments = begun.url.removeprefix(f"{BASE}/").split("/")
        assert len(segments) == 3
        assert segments[1] not in (".", "..")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_path_placeholder_is_one_segment(value: str) -> None:
    if value in (".", ".."):
        with pytest.raises(template.MissingValue):
            template.fill_path("/a/{x}/b", {"x": value})
        return
    filled = template.fill_path("/a/{x}/b", {"x": value})
    assert filled.count("/") == 3
    assert not set(filled) & set("?#\\ \r\n")


def test_text_with_a_secret_in_it_is_a_secret_and_other_text_is_not() -> None:
    values = {"password": Secret("hunter2"), "user": "me"}
    assert template.fill("pass {password} of {user}", values) == Secret("pass hunter2 of me")
    assert template.fill("{user} and {user}", values) == "me and me"
    assert "hunter2" not in repr(template.fill({"a": ["x {password}"]}, values))


def test_a_missing_value_says_which() -> None:
    with pytest.raises(template.MissingValue, match="x has no value"):
        template.fill({"a": ["{x}"]}, {})
