# Reading a provider's answer never takes so long that others wait (law 13).
from __future__ import annotations

import json
import re
from typing import Any

import pytest

from brokerd.core.exchange.scope import CUT
from brokerd.dialects import answer_body, answer_values, answer_words
from brokerd.dialects.answer_body import CANDIDATES, MOST_SIGNS, plain, wrapped
from brokerd.dialects.answer_values import LONGEST_SCOPE
from brokerd.dialects.oauth2 import refusals
from tests.unit.dialects.exchange_driver import answer

MIB = 1 << 20
TOKENS = '{"access_token": "test-only-access", "refresh_token": "test-only-refresh"'
DENSE = {
    "members": TOKENS + ', "a": 1' * (MIB // 8) + "}",
    "an array": TOKENS + ', "a": [' + "1," * (MIB // 2) + "1]}",
    "arrays": TOKENS + ', "a": [' + "[]," * (MIB // 3) + "[]]}",
    "objects": TOKENS + ', "a": [' + "{}," * (MIB // 3) + "{}]}",
    "nested": '{"a":' * (MIB // 5),
    "JSON in a text": json.dumps(TOKENS + ', "a": [' + "1," * (MIB // 4) + "1]}"),
    "objects that end too soon": "notice " + '{"a":[' * CANDIDATES + "1," * (MIB // 2),
    "commas that a text hides": json.dumps(TOKENS + ', "a": [')[:-1] + "1\\u002c" * (MIB // 8) + '1]}"',
    "behind texts with quotes": TOKENS + ', "b": "\\\\\\"", "a": [' + "1," * (MIB // 4) + "1]}",
    "texts": TOKENS + ', "a": [' + '"",' * (MIB // 4) + "1]}",
    "a form of escapes": "access_token=" + "%41" * (MIB // 3),
    "a form": "access_token=x&" + "a=1&" * (MIB // 4),
}


class Counting:
    """The decoder, and how much it makes."""

    def __init__(self) -> None:
        self.made = 0

    def decode(self, text: str) -> Any:
        self.made += sum(map(re.sub(r'"(?:[^"\\]|\\.)*"', "", text).count, ",:[{"))
        return answer_body.json.loads(text)

    def raw_decode(self, text: str, start: int) -> Any:
        self.made += sum(text.count(sign, start) for sign in ",:[{")
        return answer_body.json.JSONDecoder().raw_decode(text, start)


@pytest.mark.parametrize("text", DENSE.values(), ids=DENSE)
def test_an_answer_that_is_made_to_be_slow_is_not_parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(answer_body, "DECODER", counting)
    response = answer(200, text.encode())
    assert plain(response) is None
    assert wrapped(response) is None
    assert counting.made <= 3 * MOST_SIGNS


@pytest.mark.parametrize("text", ["scope:1 " * 60_000, '\\ " , [{' * 30_000], ids=["colons", "everything"])
def test_a_text_may_hold_any_number_of_signs(text: str) -> None:
    for body_of in (json.dumps, lambda found: json.dumps(json.dumps(found))):
        response = answer(200, body_of({"refresh_token": "test-only-refresh", "scope": text}).encode())
        assert (wrapped(response) or {})["refresh_token"] == "test-only-refresh"


def test_a_large_answer_that_is_not_slow_is_read() -> None:
    text = json.dumps({"access_token": "x" * 256 * 1024, "padding": [0] * 4_000, "more": ["y" * 100_000] * 5})
    assert (plain(answer(200, text.encode())) or {})["padding"] == [0] * 4_000


def test_a_long_number_says_nothing_and_is_not_read() -> None:
    """Reading it takes the square of its length, and Python's own limit would lose the tokens beside it."""
    for digits, value in ((100, 10**100 // 9), (101, None), (5_000, None)):
        found = plain(answer(200, f'{TOKENS}, "a": {"1" * digits}}}'.encode()))
        assert (found or {})["a"] == value
        assert (found or {})["access_token"] == "test-only-access"


def test_of_a_long_description_the_beginning_is_searched() -> None:
    """A search for all the ways to say that a refresh token is dead takes 400 ms for a megabyte."""
    text = json.dumps({"error": "invalid_request", "error_description": "refresh token " + "is " * (MIB // 4)})
    found = refusals.read(answer(400, text.encode()), refreshing=True)
    assert found is not None
    assert (found.code, len(found.description or "")) == ("invalid_request", refusals.LONGEST_DESCRIPTION)


class Splitting:
    """A pattern, and how much is made of a text by it."""

    def __init__(self) -> None:
        self.made = 0

    def split(self, text: str, most: int = 0) -> list[str]:
        found = re.split(r"[\s,]+", text, maxsplit=most)
        self.made += len(found)
        return found


def test_a_long_scope_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    splitting = Splitting()
    monkeypatch.setattr(answer_values, "SEPARATORS", splitting)
    found = answer_values.scope("a " * (MIB // 2)) or ()
    assert (len(found), found[-1]) == (LONGEST_SCOPE // 2 + 1, CUT)
    assert splitting.made <= LONGEST_SCOPE + 1
    assert answer_values.scope("a " * 10) == ("a",) * 10


class Searched:
    """A pattern, and what was searched by it."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def search(self, text: str) -> None:
        self.lengths.append(len(text))


def test_in_a_long_name_nothing_is_searched_and_its_value_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = Searched()
    monkeypatch.setattr(answer_words, "HIDDEN", searched)
    text = json.dumps({"x" * MIB: "precious", "why": "because"})
    said = answer_words.said(answer(400, text.encode()), ())
    assert "precious" not in said
    assert "because" in said
    assert searched.lengths == [3]
