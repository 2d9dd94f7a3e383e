# Answers with tokens in an undocumented form (law 3), for oauth2 and for a recipe. What is safe to read is read. A
# token that is not safe to serve does not cost its refresh token.
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.outcomes import Cause, Issued, RetryLater
from brokerd.core.exchange.scope import CUT, cut_scope, is_cut
from brokerd.core.exchange.steps import Exchange, Response
from brokerd.core.secret import Secret
from brokerd.dialects import answer_values
from brokerd.dialects.answer_body import plain, wrapped
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import NOW, answer, http_date, meaning, outcome, recipe, view, words

PAIR = {"access_token": "A1", "refresh_token": "R1", "expires_in": 3600, "token_type": "bearer"}
TEXT = json.dumps(PAIR).encode()
NOTICE = b"<br />\n<b>Notice</b>:  Undefined variable {closure} in <b>/srv/token.php</b> on line <b>3</b><br />\n"
SETTINGS = {"grant_type": "refresh_token", "client_auth": "none"}
SEEN = view({"client_id": "c", "client_secret": "s"}, SETTINGS, refresh="R0")
RENEWALS: dict[str, Callable[[], Exchange]] = {
    "oauth2": lambda: OAuth2("https://idp.example/token").renew(SEEN),
    "treezor": lambda: recipe("treezor").renew(SEEN),
}
both = pytest.mark.parametrize("dialect", RENEWALS)

READ = {
    "as it should be": TEXT,
    "a form": b"access_token=A1&refresh_token=R1&expires_in=3600&token_type=bearer",
    "a form with empty fields": b"access_token=A1&scope=&refresh_token=R1&expires_in=3600&token_type=bearer\n",
    "a byte order mark": b"\xef\xbb\xbf" + TEXT,
    "UTF-16": TEXT.decode().encode("utf-16"),
    "a NUL behind it": TEXT + b"\0",
    "line breaks and NULs around it": b"\r\n\0" + TEXT + b"\r\n\0\0",
    "a Latin-1 byte": TEXT[:-1] + b', "name": "M\xfcller"}',
    "a raw tab in a text": TEXT[:-1] + b', "name": "a\tb\nc"}',
    "NaN": TEXT[:-1] + b', "score": NaN, "limit": -Infinity}',
    "an array": b"[" + TEXT + b"]",
    "a text": json.dumps(TEXT.decode()).encode(),
    "an array in a text": json.dumps(f"[{TEXT.decode()}]").encode(),
    "a notice before it": NOTICE + TEXT,
    "a comment behind it": TEXT + b"<!-- made in 3 ms -->",
    "names that come twice": TEXT[:-1] + b', "refresh_token": null, "access_token": ""}',
    "an error that is null": TEXT[:-1] + b', "error": null, "errors": []}',
}


@both
@pytest.mark.parametrize("form", READ)
def test_what_is_safe_to_read_is_read(dialect: str, form: str) -> None:
    found = outcome(RENEWALS[dialect](), answer(200, READ[form], {"content-type": "text/html"}))
    assert isinstance(found, Issued), words(found)
    access, refresh = found.tokens.access_token, found.tokens.refresh_token
    assert (access and access.value, refresh and refresh.value) == (Secret("A1"), Secret("R1"))
    assert access
    assert (access.lifetime, found.tokens.token_type) == (3600.0, "bearer")


@both
def test_a_form_that_does_not_encode_its_signs_loses_no_token(dialect: str) -> None:
    body = b"refresh_token=r+1/x==&access_token=a+b/c==&expires_in=3600&token_type=bearer&scope=read+write"
    found = outcome(RENEWALS[dialect](), answer(200, body))
    assert isinstance(found, Issued), words(found)
    access, refresh = found.tokens.access_token, found.tokens.refresh_token
    assert (access and access.value, refresh and refresh.value) == (Secret("a+b/c=="), Secret("r+1/x=="))
    assert found.tokens.scope in (("read", "write"), None)
    encoded = body.replace(b"+1", b"%2B1").replace(b"+b", b"%2Bb")
    assert outcome(RENEWALS[dialect](), answer(200, encoded)) == found


KEPT = {
    "an access token with a newline": {**PAIR, "access_token": "A1\n"},
    "an access token that is too long": {**PAIR, "access_token": "a" * (256 * 1024 + 1)},
    "an access token that is an object": {**PAIR, "access_token": {"value": "A1"}},
    "no access token": {"refresh_token": "R1", "expires_in": 3600},
    "an access token in a form that no header carries": b"access_token=A%0A1&refresh_token=R1",
    "a blank in an access token in a form": b"access_token=A%201&refresh_token=R1",
    "in an array": [{**PAIR, "access_token": "A 1"}],
}


@both
@pytest.mark.parametrize("form", KEPT)
def test_what_is_not_safe_to_serve_leaves_its_refresh_token(dialect: str, form: str) -> None:
    found = outcome(RENEWALS[dialect](), answer(200, KEPT[form]))
    assert isinstance(found, RetryLater)
    assert found.cause is Cause.UNREADABLE
    assert found.refresh_token is not None
    assert found.refresh_token.value == Secret("R1")
    assert "R1" not in words(found)


@both
@pytest.mark.parametrize(
    "body", [b"", b"\n", b"null", b"{}", b"<html>", TEXT[:-1], b"access_token", b"=", b"{" * 99_999]
)
def test_a_success_that_brings_nothing_is_an_interruption(dialect: str, body: bytes) -> None:
    found = outcome(RENEWALS[dialect](), answer(200, body))
    assert isinstance(found, RetryLater)
    assert (found.cause, found.refresh_token) == (Cause.UNREADABLE, None)
    assert found.cause.touched


@both
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_whole_pair_in_a_failure_is_kept(dialect: str, status: int) -> None:
    found = outcome(RENEWALS[dialect](), answer(status, PAIR, {"retry-after": "3"}))
    assert isinstance(found, RetryLater)
    assert (found.refresh_token and found.refresh_token.value, found.after) == (Secret("R1"), 3.0)
    for part in ({"refresh_token": "R1"}, {"access_token": "A1"}, {**PAIR, "access_token": "A 1"}):
        found = outcome(RENEWALS[dialect](), answer(status, part))
        assert isinstance(found, RetryLater)
        assert found.refresh_token is None


@both
@pytest.mark.parametrize("status", [302, 400, 403, 404, 429])
def test_tokens_in_any_other_answer_are_not_believed(dialect: str, status: int) -> None:
    found = outcome(RENEWALS[dialect](), answer(status, PAIR))
    assert isinstance(found, RetryLater)
    assert found.refresh_token is None


def cut(body: bytes) -> Response:
    return replace(answer(200, body), cut="127.0.0.1:1: connection closed in the middle of the answer")


@both
def test_a_body_that_is_not_whole_is_read_if_its_object_is(dialect: str) -> None:
    assert meaning(outcome(RENEWALS[dialect](), cut(TEXT))) == "issued"
    for body in (TEXT[:-1], b"access_token=A1&refresh_token=R", b'{"error": "invalid_grant"'):
        found = outcome(RENEWALS[dialect](), cut(body))
        assert isinstance(found, RetryLater)
        assert found.cause is Cause.UNANSWERED
        assert found.reason == cut(b"").cut


# -- values that are odd, or too large to keep


@pytest.mark.parametrize(
    ("value", "odd"),
    [
        (0, "lives 0 s"),
        (-1, "lives -1 s"),
        ("0", "lives 0 s"),
        (1_800_003_600, "looks like a point in time"),
        (1_800_003_600_000, "looks like a point in time"),
        (3_600_000, "looks like milliseconds"),
        (86_400_000, "looks like milliseconds"),
        (3_600, None),
        (2_592_000, None),  # 30 days
        (5_184_000, None),  # 60 days: LinkedIn, Facebook
        (7_776_000, None),  # 90 days
        (31_536_000, None),  # a year
        (None, None),
        ("soon", None),
    ],
)
def test_a_lifetime_that_is_hard_to_believe_is_named(value: object, odd: str | None) -> None:
    for renew in RENEWALS.values():
        found = outcome(renew(), answer(200, {**PAIR, "expires_in": value}))
        assert isinstance(found, Issued)
        assert found.tokens.access_token
        said = found.tokens.access_token.lifetime_warning
        assert said is None if odd is None else odd in str(said)


@pytest.mark.parametrize(
    ("written", "names"),
    [("a b", ("a", "b")), ("a,b", ("a", "b")), ("a, b", ("a", "b")), ("", ()), (["a,b"], ("a,b",)), (5, None)],
)
def test_a_scope_is_read_with_blanks_and_with_commas(written: object, names: tuple[str, ...] | None) -> None:
    assert answer_values.scope(written) == names


def test_a_scope_that_is_too_long_is_cut_and_says_so() -> None:
    found = answer_values.scope(" ".join(f"scope:{number}" for number in range(100_000)))
    assert found
    assert is_cut(found)
    assert (found[0], found[-1]) == ("scope:0", CUT)
    assert sum(map(len, found)) < 9_000
    assert cut_scope(["x" * 9_000], 8_192) == (CUT,)
    assert not is_cut(("a",))
    assert not is_cut(())
    assert not is_cut(None)


def test_a_token_type_and_an_id_that_are_too_long_are_none() -> None:
    assert answer_values.token_type("x" * 65) == "Bearer"
    assert answer_values.identifier("x" * 1_025) is None
    assert answer_values.identifier(10**40) is None


# -- a provider's clock


@pytest.mark.parametrize(
    ("skew", "said"),
    [(20, "20 s behind"), (-20, "s ahead of"), (9, None), (-9, None), (0, None)],
)
def test_a_refusal_from_another_time_says_so(skew: int, said: str | None) -> None:
    for status, body in (
        (400, {"error": "invalid_client"}),
        (401, {"error": "invalid_grant"}),
        (403, {"detail": "no"}),
    ):
        found = words(outcome(RENEWALS["oauth2"](), answer(status, body, {"date": http_date(NOW.wall + skew)})))
        assert ("this machine's clock is" in found) is (said is not None)
        assert said is None or said in found


# -- whatever comes


@given(st.binary(max_size=300) | st.text("{}[]\"',:=&\\ax\0\ufeff\t <", max_size=60).map(str.encode))
def test_any_body_is_members_or_nothing(data: bytes) -> None:
    for read in (plain, wrapped):
        found = read(answer(200, data))
        assert found is None or all(isinstance(name, str) for name in found)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_what_stands_around_an_object_never_changes_it(before: bytes, after: bytes) -> None:
    found = wrapped(answer(200, before.replace(b"{", b"") + TEXT + after.replace(b"{", b"")))
    assert found is None or found.get("refresh_token") in ("R1", None)
