# The further values of a token in an answer: as text, bounded, complete, and never without their token.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Issued, IssuedToken, Misconfigured, Tokens
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.answer_fields import LARGEST, MOST, Wanted, check_names, with_fields
from tests.unit.dialects.exchange_driver import answer, drive, outcome, view
from tests.unit.dialects.oauth2.oauth2_grants import IDP, grant
from tests.unit.dialects.recipe.short_recipes import dialect

BROUGHT = Tokens(IssuedToken(Secret("access-1"), 60.0), IssuedToken(Secret("refresh-2")))
ANSWER = {"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 60}


def read(found: Mapping[str, object], *names: str, kept: Mapping[str, Secret] | None = None) -> Issued | Misconfigured:
    return with_fields(BROUGHT, Wanted(names, kept or {}), found.get, "issue")


def fields_of(found: object) -> dict[str, str]:
    assert isinstance(found, Issued), found
    return {name: value.reveal() for name, value in found.tokens.fields.items()}


def reason_of(found: object) -> str:
    assert isinstance(found, Misconfigured), found
    return found.reason


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("https://eu1.example", "https://eu1.example"),
        ("two\nlines", "two\nlines"),
        (17, "17"),
        (1.5, "1.5"),
        (True, "true"),
        ({"id": "ü"}, '{"id": "ü"}'),
        (["a", None], '["a", null]'),
    ],
)
def test_fields_are_text_and_other_values_their_json(value: object, text: str) -> None:
    assert fields_of(read({"a": value, "b": "not named"}, "a")) == {"a": text}


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_field_is_an_error_that_names_it_and_the_refresh_token_is_kept(value: object) -> None:
    found = read({"a": "x", "instance_url": value}, "a", "instance_url")
    assert reason_of(found) == (
        "issue: the answer has no instance_url, which fields names; correct fields, or ask for the scope that brings it"
    )
    assert isinstance(found, Misconfigured)
    assert found.refresh_token == BROUGHT.refresh_token


def test_fields_are_bounded_and_text() -> None:
    assert fields_of(read({"a": "x" * (LARGEST - 1)}, "a"))
    assert f"the fields have {LARGEST + 1} bytes together" in reason_of(read({"a": "x" * LARGEST}, "a"))
    assert "bytes together" in reason_of(read({"a": "ü" * (LARGEST // 2), "b": "x"}, "a", "b"))
    for value, words in (("half \ud83d", "is not text in Unicode"), ("a\0b", "has a zero byte in it")):
        said = reason_of(read({"a": value}, "a"))
        assert f"issue: the field a {words}" in said
        assert value not in said


def test_what_a_renewal_does_not_repeat_keeps_its_value() -> None:
    assert fields_of(
        read({"a": "new"}, "a", "b", kept={"a": Secret("old"), "b": Secret("old"), "c": Secret("old")})
    ) == {
        "a": "new",
        "b": "old",
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("a b",),
            'expected names of letters, digits, dots, dashes and underscores, at most 64 characters, found "a b"',
        ),
        (("",), 'found ""'),
        (("x" * 65,), "at most 64 characters"),
        (("a", "a"), "a field is named twice; remove one"),
        (tuple(f"f{number}" for number in range(MOST + 1)), f"expected at most {MOST} fields, found {MOST + 1}"),
        (("refresh_token",), "no caller gets the refresh token"),
    ],
)
def test_names_are_plain_and_few(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_names(names, "fields")
    assert words in str(caught.value)


# -- at an OAuth 2.0 server


def test_an_issue_must_bring_each_field_and_a_renewal_may_leave_it_out() -> None:
    wanted = grant(fields=("id_token", "instance_url"))
    whole = {**ANSWER, "id_token": "jwt-1", "instance_url": "https://eu1.example"}
    assert fields_of(outcome(IDP.issue(wanted), answer(200, whole))) == {
        "id_token": "jwt-1",
        "instance_url": "https://eu1.example",
    }
    lacking = outcome(IDP.issue(wanted), answer(200, {**whole, "id_token": None}))
    assert "client_credentials: the answer has no id_token, which fields names; add openid to scope" in reason_of(
        lacking
    )
    before = replace(wanted, access_token=None, fields={"id_token": Secret("jwt-0")})
    renewed = outcome(IDP.renew(before), answer(200, {**whole, "id_token": None}))
    assert fields_of(renewed) == {"id_token": "jwt-0", "instance_url": "https://eu1.example"}
    unknown = outcome(IDP.renew(before), answer(200, ANSWER))
    assert "refresh_token: the answer has no instance_url" in reason_of(unknown)
    assert isinstance(unknown, Misconfigured)
    assert unknown.refresh_token == IssuedToken(Secret("refresh-2"))


def test_a_downscoped_token_has_the_fields_of_its_own_answer() -> None:
    wanted = replace(
        grant(fields=("id_token", "instance_url"), scope=("read", "write")),
        target=Target(("read",)),
        fields={"id_token": Secret("of the grant's own token")},
    )
    _, found = drive(IDP.renew(wanted), answer(200, {**ANSWER, "instance_url": "https://eu1.example"}))
    assert fields_of(found) == {"instance_url": "https://eu1.example"}


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_no_error_shows_a_field_that_came_with_a_failure(status: int) -> None:
    """Found by the simulation: a server answers 500 and has tokens and fields in the body."""
    said = {"id": "key of a person", "detail": "it failed for key of a person", "more": {"n": 4711_0815}}
    fields = ("id", "more")
    oauth2 = outcome(IDP.renew(grant(fields=fields)), answer(status, {**said, "refresh_token": "r"}))
    found = dialect(LEASE.replace("data.username", "id").replace('"ttl"', '"more"'))
    lease = outcome(found.issue(view({"user": "u"})), answer(status, said))
    for each in (oauth2, lease):
        assert not isinstance(each, Issued)
        assert "person" not in each.reason
        assert "47110815" not in each.reason
    if status == 500:
        assert "it failed for ***" in oauth2.reason


# -- by a recipe

LEASE = """
credentials = ["user"]

[[issue]]
request = "POST /lease"
form    = { user = "{user}" }

[issue.answer]
access_token  = { at = "data.password", id = "lease_id" }
refresh_token = "renewal"
fields        = { username = "data.username", ttl = "ttl" }

[renew]
request = "POST /renew"
form    = { id = "{refresh_token}" }
answer  = { access_token = "data.password", refresh_token = "renewal", fields = { ttl = "ttl" } }
"""


def test_a_recipe_says_where_fields_are_and_which_of_them_a_renewal_repeats() -> None:
    found = dialect(LEASE)
    assert found.fields({}) == ("ttl", "username")
    whole = {"data": {"password": "pass-1", "username": "v-user-1"}, "lease_id": "l1", "renewal": "r1", "ttl": 60}
    assert fields_of(outcome(found.issue(view({"user": "u"})), answer(200, whole))) == {
        "username": "v-user-1",
        "ttl": "60",
    }
    lacking = outcome(found.issue(view({"user": "u"})), answer(200, {**whole, "data": {"password": "pass-1"}}))
    assert "issue[0]: the answer has no username" in reason_of(lacking)
    held = replace(
        view({"user": "u"}, refresh="r1"),
        fields={"username": Secret("v-user-1"), "ttl": Secret("60"), "gone": Secret("from an older recipe")},
    )
    renewed = outcome(found.renew(held), answer(200, {**whole, "ttl": 90, "data": {"password": "pass-1"}}))
    assert fields_of(renewed) == {"username": "v-user-1", "ttl": "90"}
    less = outcome(found.renew(held), answer(200, {**whole, "ttl": None}))
    assert "renew: the answer has no ttl" in reason_of(less)


def test_a_field_that_is_nested_too_deeply_costs_the_access_token_only() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    found = read({"deep": deep}, "deep")
    assert "nested too deeply" in reason_of(found)
    assert isinstance(found, Misconfigured)
    assert found.refresh_token is not None
    while deep:  # or freeing it would be as deep
        deep = deep.pop()  # type: ignore[assignment]
