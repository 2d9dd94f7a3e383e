# Times in answers: how long a token is valid here, whatever the provider's clock says (laws 5 and 8).
from __future__ import annotations

import math

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd.core.exchange.steps import Response
from brokerd.core.timing.moment import Moment
from brokerd.dialects.answer_body import json_object
from brokerd.dialects.answer_outcomes import strange
from brokerd.dialects.answer_values import identifier, lifetime_in, lifetime_of_jwt, lifetime_until, number
from tests.unit.dialects.exchange_driver import NOW, answer, html, http_date, jwt_of

KEY = "test-only-signing-key-with-more-than-32-bytes"
LIFETIME = 3_600.0


@st.composite
def answers_of_a_server(draw: st.DrawFn, skew: float | None = None) -> tuple[Response, float, float]:
    """An answer of a server whose clock is off by `skew` seconds: the answer, and on its clock the second in which it
    issued the token, and how late the token came to be after the request had left here."""
    off = draw(st.floats(-10_000, 10_000)) if skew is None else skew
    fraction, before, after = draw(st.floats(0, 0.999)), draw(st.floats(0, 5)), draw(st.floats(0, 5))
    sent_at = NOW._replace(wall=math.floor(NOW.wall) + fraction)
    clock = sent_at.wall + before + off
    return answer(200, b"", {"date": http_date(clock)}, took=before + after, sent_at=sent_at), clock, before


def jwt_from(clock: float, lifetime: float = LIFETIME) -> str:
    """As JWT libraries make them: whole seconds, iat cut down."""
    return jwt.encode({"iat": math.floor(clock), "exp": math.floor(clock) + int(lifetime)}, KEY, algorithm="HS256")


@given(answers_of_a_server())
def test_a_jwt_of_a_server_with_any_clock_is_never_served_a_second_after_its_end(
    heard: tuple[Response, float, float],
) -> None:
    response, clock, before = heard
    lifetime = lifetime_of_jwt(jwt_from(clock), response)
    assert lifetime is not None
    true_lifetime = math.floor(clock) + LIFETIME - clock + before  # from when the request left
    assert lifetime <= true_lifetime + 1.0  # a skew of under a second is not to be told from the time on the way
    assert lifetime >= LIFETIME - 2.0


@given(answers_of_a_server(skew=0.0))
def test_a_jwt_of_a_server_with_our_clock_is_never_served_after_its_end(heard: tuple[Response, float, float]) -> None:
    response, clock, before = heard
    lifetime = lifetime_of_jwt(jwt_from(clock), response)
    assert lifetime is not None
    assert lifetime <= math.floor(clock) + LIFETIME - clock + before + 1e-6


@given(answers_of_a_server())
def test_an_absolute_end_is_taken_on_the_clock_of_the_provider(heard: tuple[Response, float, float]) -> None:
    response, clock, before = heard
    lifetime = lifetime_until(math.ceil(clock + LIFETIME), response)
    assert lifetime is not None
    true_lifetime = math.ceil(clock + LIFETIME) - clock + before
    assert true_lifetime - before - 2.0 <= lifetime <= true_lifetime + 1.0


@given(answers_of_a_server(skew=0.0))
def test_an_absolute_end_is_exact_where_the_clocks_agree(heard: tuple[Response, float, float]) -> None:
    response, clock, before = heard
    true_lifetime = math.ceil(clock + LIFETIME) - response.sent_at.wall
    lifetime = lifetime_until(math.ceil(clock + LIFETIME), response)
    assert lifetime is not None
    assert true_lifetime - before - 1e-6 <= lifetime <= true_lifetime + 1e-6


def test_without_a_date_an_absolute_end_is_taken_on_our_own_clock() -> None:
    assert lifetime_until(NOW.wall + 60, answer(200)) == pytest.approx(60)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 25:61:61 GMT"])
def test_a_date_that_cannot_be_read_is_as_good_as_none(date: str) -> None:
    assert lifetime_until(NOW.wall + 60, answer(200, b"", {"date": date})) == pytest.approx(60)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": [1]},
        {"exp": True},
        {"exp": 10**30, "iat": 0},
        {},
        {"iat": 1_800_000_000},
    ],
)
def test_a_jwt_that_names_no_sensible_end_has_no_known_lifetime(claims: dict[str, object]) -> None:
    assert lifetime_of_jwt(jwt.encode(claims, KEY, algorithm="HS256"), answer(200)) is None


@pytest.mark.parametrize(
    "token", ["opaque", "", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30", "é.é.é", "." * 1_000, "eyJh" * 9_000]
)
def test_what_is_no_jwt_has_no_known_lifetime(token: str) -> None:
    assert lifetime_of_jwt(token, answer(200)) is None


def test_a_jwt_is_read_and_not_verified() -> None:
    signed_by_others = jwt.encode({"iat": 1_800_000_000, "exp": 1_800_000_060}, "x" * 64, algorithm="HS512")
    unsigned = jwt.encode({"iat": 1_800_000_000, "exp": 1_800_000_060}, None, algorithm="none")
    for token in (signed_by_others, unsigned):
        assert lifetime_of_jwt(token, answer(200)) == pytest.approx(60, abs=1.5)


def test_a_jwt_that_ended_long_ago_has_no_life_left() -> None:
    token = jwt.encode({"exp": NOW.wall - 60}, KEY, algorithm="HS256")
    lifetime = lifetime_of_jwt(token, answer(200))
    assert lifetime is not None
    assert lifetime < 0


@pytest.mark.parametrize("skew", [-90.0, 0.0, 90.0])
def test_a_jwt_that_the_provider_made_long_ago_lives_only_as_long_as_is_left_of_it(skew: float) -> None:
    """Some providers give out one token until it ends; their Date says how old it is."""
    clock = NOW.wall + skew
    dated = answer(200, b"", {"date": http_date(clock)})
    assert lifetime_of_jwt(jwt_of(clock - 3_000), dated) == pytest.approx(600, abs=2.5)
    ended = lifetime_of_jwt(jwt_of(clock - 4_000), dated)
    assert ended is not None
    assert ended < 0
    assert lifetime_of_jwt(jwt_of(clock - 3_000), answer(200)) == 3_599  # without a Date nobody knows


@pytest.mark.parametrize("skew", [-90.0, 0.0, 90.0])
@pytest.mark.parametrize("took", [0.1, 1.0, 3.0, 8.0])
def test_a_jwt_never_outlives_itself_however_long_its_answer_takes(skew: float, took: float) -> None:
    """`iat` cuts off up to a second, and a slow answer's Date is later than what it dates."""
    for fraction in (0.0, 0.3, 0.6, 0.95):
        sent = Moment(NOW.wall + fraction, NOW.boot, "boot")
        made = sent.wall + skew + 0.03
        headers = (("date", http_date(made + took)),)
        heard = Response(200, headers, b"", sent, sent.after(took + 0.05))
        lifetime = lifetime_of_jwt(jwt_of(made), heard)
        assert lifetime is not None
        ends = math.floor(made) + 3_600 - skew  # by our clock
        assert ends - 2.0 <= sent.wall + lifetime <= ends + 0.001


def test_a_jwt_for_another_audience_is_read_too() -> None:
    assert lifetime_of_jwt(jwt_of(aud=["somebody"], nbf=NOW.wall + 9_999), answer(200)) == pytest.approx(3_600, abs=1.5)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_a_number_is_finite_or_none(value: object) -> None:
    found = number(value)
    assert found is None or math.isfinite(found)
    lifetime = lifetime_in(value)
    assert lifetime is None or lifetime <= 100 * 366 * 86_400


def test_a_lifetime_in_milliseconds_is_told_in_seconds() -> None:
    assert lifetime_in(90_000, unit=0.001) == 90.0


@settings(max_examples=50)
@given(st.binary(max_size=60) | st.recursive(st.none(), st.lists).map(lambda value: str(value).encode()))
def test_any_body_is_one_object_or_nothing(body: bytes) -> None:
    assert json_object(answer(200, body)) is None or body.lstrip().startswith(
        (b"{", b"\xff", b"\xfe", b"\x00", b"\xef")
    )


@pytest.mark.parametrize(
    ("value", "found"), [("a", "a"), (17, "17"), ("", None), (None, None), (True, None), (1.5, None), ([], None)]
)
def test_text_is_text_or_a_whole_number(value: object, found: str | None) -> None:
    assert identifier(value) == found


def test_what_is_strange_is_described_by_its_form_and_never_by_its_content() -> None:
    described = strange(html(403, b"<p>secret words"), "renew").reason
    assert described == "renew: answered 403 with text/html, 15 bytes, which is not in the provider's format"
    controls = strange(answer(200, b"", {"content-type": "text/\x1b[31m" + "x" * 500}), "renew").reason
    assert controls.isprintable()
    assert len(controls) < 200
