# A provider's words, fit for logs and terminals: without the secrets that were sent, on one line, cut (law 11).
from __future__ import annotations

import base64
import json
import re
import time
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokerd.core.exchange.redaction import LONGEST, reason
from brokerd.core.secret import Secret

PASSWORD = 'pä ss/"word"\\+&=%41'
Encoding = Callable[[str], str]

ENCODINGS: dict[str, Encoding] = {
    "raw": str,
    "url": lambda value: quote(value, safe=""),
    "url with slashes": quote,
    "form": quote_plus,
    "url in lower case": lambda value: _lower_hex(quote(value, safe="")),
    "form in lower case": lambda value: _lower_hex(quote_plus(value)),
    "json": lambda value: json.dumps(value)[1:-1],
    "json in utf-8": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 unpadded": lambda value: base64.b64encode(value.encode()).decode().rstrip("="),
    "base64url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
}


def _lower_hex(text: str) -> str:
    parts = text.split("%")
    return parts[0] + "".join(f"%{part[:2].lower()}{part[2:]}" for part in parts[1:])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_masked_in_every_encoding(encoding: str) -> None:
    echoed = ENCODINGS[encoding](PASSWORD)
    found = reason(f"password={echoed}: wrong", [Secret(PASSWORD)])
    assert found.startswith("password=***")
    assert found.endswith(": wrong")
    assert echoed.rstrip("=") not in found


# Letters that survive being put on one line: what is between words is another matter, and has a test of its own.
values = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Co", "Z"], exclude_characters="*"), min_size=4
)


@given(values, st.sampled_from(sorted(ENCODINGS)), st.text(max_size=50), st.text(max_size=50))
@example("abcd", "raw", "abab", "cdcd")  # what is left on both sides does not make it up again
def test_no_secret_of_four_characters_survives(value: str, encoding: str, before: str, after: str) -> None:
    found = reason(before + ENCODINGS[encoding](value) + after, [Secret(value)])
    for form in {ENCODINGS[each](value).rstrip("=") for each in ("raw", "url", "form", "json", "base64", "base64url")}:
        assert form not in found


@given(st.lists(values, min_size=1, max_size=4))
def test_several_secrets_are_masked_even_where_one_holds_another(several: list[str]) -> None:
    several += [value[:-1] for value in several if len(value) > 4]
    found = reason(" and ".join(several), map(Secret, several))
    assert all(value not in found for value in several)


@pytest.mark.parametrize("echoed", ["correct horse", "correct\nhorse", "correct \t horse", "correct\u00a0horse"])
def test_a_secret_with_a_space_is_masked_however_its_space_is_written(echoed: str) -> None:
    """What is put on one line must not become the secret again."""
    assert "correct horse" not in reason(f"wrong: {echoed}", [Secret("correct horse")])


@pytest.mark.parametrize("length", [300, 4_000])
@pytest.mark.parametrize("between", ["", "\n\n", "\0\0\0", "    "])
def test_a_secret_that_is_cut_off_by_the_length_limit_does_not_show_in_part(length: int, between: str) -> None:
    passphrase = ("correct horse battery staple " * 200)[:length]
    found = reason((passphrase + between) * 40, [Secret(passphrase)])
    assert "horse" not in found


@pytest.mark.parametrize("blank", ["    ", "\n\n\n\n", "\0\0\0\0"])
def test_a_secret_of_blanks_leaves_the_text_readable(blank: str) -> None:
    assert reason("a bad request", [Secret(blank)]) == "a bad request"


def test_secrets_of_a_few_characters_leave_the_text_readable() -> None:
    assert reason("a bad request", [Secret("a"), Secret("bad")]) == "a bad request"


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig",
        "eyJhbGciOiJIUzI1NiJ9",
        "0123456789abcdef0123456789abcdef01234567",
        "test-only-occam-access-1-" + "x" * 32,
    ],
)
def test_a_token_that_the_provider_made_up_is_masked_by_its_looks(token: str) -> None:
    assert reason(f"issued {token} instead") == "issued *** instead"


def test_words_ids_and_addresses_are_left_alone() -> None:
    said = "The scope 'tokens:write' of client 7c9e6679-7425-40de-944b-e07fc1f90afe is not allowed at api.example.com"
    assert reason(said, [Secret("hunter2")]) == said


@given(st.text(max_size=500))
def test_a_reason_is_one_line_of_printable_characters_and_at_most_200_of_them(text: str) -> None:
    found = reason(text)
    assert len(found) <= LONGEST
    assert found.isprintable()
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") for each in found)
    assert found == found.strip()


@pytest.mark.parametrize(
    "text",
    ["a\x1b[31mb", "a\r\nb", "a\x00b", "a\u202eb", "a\u2028b", "a\x07\x08b", "a\u200bb", "a\ud800b", "a\t\t  b"],
)
def test_what_would_play_with_a_terminal_is_taken_out(text: str) -> None:
    assert reason(text) in ("a b", "a [31mb")


def test_a_long_reason_is_cut_and_says_so() -> None:
    found = reason("word " * 1_000)
    assert len(found) == LONGEST
    assert found.endswith("…")
    assert reason("x " * 99 + "xx") == "x " * 99 + "xx"


def test_a_mebibyte_of_text_is_no_work() -> None:
    assert len(reason("ab " * 350_000, [Secret("hunter2"), Secret("b a")])) == LONGEST


@pytest.mark.parametrize("size", [9_000, 256 * 1024])
def test_long_secrets_are_no_work(size: int) -> None:
    """An exchange's error is written in the event loop: all callers wait meanwhile (law 13)."""
    secrets = [Secret((f"é%{number}" * size)[:size]) for number in range(4)]
    begun = time.process_time()
    assert reason("no such token " * 700, secrets)
    assert time.process_time() - begun < 0.5


def test_no_secret_stays_in_the_cache_of_regular_expressions() -> None:
    value = "test-only-password-in-a-cache"
    assert reason(f"wrong: {value}", [Secret(value)]) == "wrong: ***"
    assert not [key for key in re._cache if value in repr(key).replace("\\", "")]  # type: ignore[attr-defined]


def test_text_that_somebody_else_has_cut_does_not_show_a_secret_in_part() -> None:
    assert "short" not in reason("it is short; pa", [Secret("short; pass-word")], is_cut=True)
