# What an answer of a provider can cost by being read: nobody else's request is answered meanwhile (law 13).
from __future__ import annotations

import json
from typing import Any

import pytest

from brokerd.dialects import body
from brokerd.dialects.body import CANDIDATES, MOST_SIGNS, plain, wrapped
from tests.dialects.answers import answer

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
    "a form of escapes": "access_token=" + "%41" * (MIB // 3),
    "a form": "access_token=x&" + "a=1&" * (MIB // 4),
}


class Counting:
    """The decoder, and how much it makes."""

    def __init__(self) -> None:
        self.made = 0

    def decode(self, text: str) -> Any:
        self.made += sum(map(text.count, ",:[{"))
        return body.json.loads(text)

    def raw_decode(self, text: str, start: int) -> Any:
        self.made += sum(text.count(sign, start) for sign in ",:[{")
        return body.json.JSONDecoder().raw_decode(text, start)


@pytest.mark.parametrize("text", DENSE.values(), ids=DENSE)
def test_an_answer_that_is_made_to_be_slow_is_not_parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(body, "DECODER", counting)
    response = answer(200, text.encode())
    assert plain(response) is None
    assert wrapped(response) is None
    assert counting.made <= 3 * MOST_SIGNS


def test_a_large_answer_that_is_not_slow_is_read() -> None:
    text = json.dumps({"access_token": "x" * 256 * 1024, "padding": [0] * 4_000, "more": ["y" * 100_000] * 5})
    assert (plain(answer(200, text.encode())) or {})["padding"] == [0] * 4_000
