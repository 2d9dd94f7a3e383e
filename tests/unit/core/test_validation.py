# An error in a file says where, what was expected and what was found, and shows no secret.
from __future__ import annotations

import datetime
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from brokerd.core.validation import ConfigError, convert, describe, expected, kind, unknown_key


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Length(float):
    @classmethod
    def read(cls, raw: object) -> Length:
        if isinstance(raw, str) and raw.endswith("m"):
            return cls(raw[:-1])
        raise ValueError('Expected a length such as "3m"')


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    colours: list[Colour] = []


class Table(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    number: int = 0
    share: float = 0.0
    on: bool = False
    words: list[str] = []
    either: str | list[str] | None = None
    inner: Inner | None = None
    inners: list[Inner] = []
    by_name: dict[str, Inner] = {}
    length: Length | None = None
    anything: Any = None


def error_of(raw: object, wanted: type = Table, *, secret: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        convert(raw, wanted, "providers.ix", secret=secret)
    return str(caught.value.within("", "brokerd.toml"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": 5}, "providers.ix.name: expected text, found 5"),
        ({"name": "x", "number": "5"}, 'providers.ix.number: expected a whole number, found "5"'),
        ({"name": "x", "number": 1.5}, "providers.ix.number: expected a whole number, found 1.5"),
        ({"name": "x", "number": True}, "providers.ix.number: expected a whole number, found true"),
        ({"name": "x", "share": "much"}, 'providers.ix.share: expected a number, found "much"'),
        ({"name": "x", "on": "yes"}, 'providers.ix.on: expected true or false, found "yes"'),
        ({"name": "x", "on": 1}, "providers.ix.on: expected true or false, found 1"),
        ({"name": "x", "words": "read"}, 'providers.ix.words: expected an array, found "read"'),
        ({"name": "x", "words": ["read", 5]}, "providers.ix.words[1]: expected text, found 5"),
        ({"name": "x", "either": 5}, "providers.ix.either: expected text or an array, found 5"),
        ({"name": "x", "inner": []}, "providers.ix.inner: expected a table, found an empty array"),
        ({"name": "x", "inner": {}}, "providers.ix.inner.name: this key is required and missing"),
        ({"name": "x", "inner": {"name": {}}}, "providers.ix.inner.name: expected text, found a table"),
        ({"name": "x", "inners": [{"name": "a"}, {"name": 3}]}, "providers.ix.inners[1].name: expected text, found 3"),
        (
            {"name": "x", "inner": {"name": "a", "colours": ["red", "green"]}},
            'providers.ix.inner.colours[1]: expected one of red, blue, found "green"',
        ),
        ({"name": "x", "length": "3 feet"}, 'providers.ix.length: expected a length such as "3m", found "3 feet"'),
        ({}, "providers.ix.name: this key is required and missing"),
        ({"name": "x", "nmber": 5}, "providers.ix.nmber: unknown key; did you mean number?"),
        (
            {"name": "x", "inner": {"name": "a", "colors": []}},
            "providers.ix.inner.colors: unknown key; did you mean colours?",
        ),
        (
            {"name": "x", "inner": {"name": "a", "zzz": 1}},
            "providers.ix.inner.zzz: unknown key; known here: colours, name",
        ),
        ([], "providers.ix: expected a table, found an empty array"),
        ("x", 'providers.ix: expected a table, found "x"'),
    ],
)
def test_an_error_names_the_key_what_was_expected_and_what_was_found(raw: object, message: str) -> None:
    assert error_of(raw) == f"brokerd.toml: {message}"


def test_an_error_in_a_table_of_tables_names_the_key_of_each() -> None:
    message = error_of({"name": "x", "by_name": {"first": {"name": "a"}, "second": {"name": 5}}})
    assert message == "brokerd.toml: providers.ix.by_name.second.name: expected text, found 5"


def test_where_a_secret_may_stand_errors_show_only_kinds() -> None:
    assert error_of({"name": 5}, secret=True) == "brokerd.toml: providers.ix.name: expected text, found a number"
    assert error_of("hunter2", secret=True) == "brokerd.toml: providers.ix: expected a table, found text"
    assert "hunter2" not in error_of({"name": "x", "length": "hunter2"}, secret=True)
    assert "hunter2" not in error_of({"name": "x", "inner": {"name": "a", "colours": ["hunter2"]}}, secret=True)
    assert "hunter2" not in error_of({"name": "x", "words": [["hunter2"]]}, secret=True)


def test_what_is_right_is_converted() -> None:
    raw = {"name": "x", "number": 5, "share": 1, "inner": {"name": "a", "colours": ["red"]}, "length": "3m"}
    found = convert(raw, Table)
    assert (found.number, found.share, found.length) == (5, 1.0, 3.0)
    assert found.inner == Inner("a", [Colour.RED])


@pytest.mark.parametrize(
    ("value", "shown", "of_kind"),
    [
        (True, "true", "a boolean"),
        (3, "3", "a number"),
        (2.5, "2.5", "a number"),
        ("read", '"read"', "text"),
        ('say "x"', '"say \\"x\\""', "text"),
        ("x" * 61, "text", "text"),
        ([], "an empty array", "an array"),
        ([1], "an array", "an array"),
        ({}, "a table", "a table"),
        (None, "nothing", "nothing"),
        (datetime.date(2026, 1, 1), "a date or time", "a date or time"),
    ],
)
def test_values_are_described_in_the_words_of_toml(value: object, shown: str, of_kind: str) -> None:
    assert describe(value) == shown
    assert kind(value) == of_kind
    assert str(expected("x", value)) == f"expected x, found {shown}"
    assert str(expected("x", value, show=False)) == f"expected x, found {of_kind}"


def test_an_unknown_key_suggests_the_one_that_was_meant() -> None:
    assert str(unknown_key("base_ulr", ["base_url", "dialect"], "providers.ix")) == (
        "providers.ix.base_ulr: unknown key; did you mean base_url?"
    )
    assert str(unknown_key("zzz", ["b", "a"])) == "zzz: unknown key; known here: a, b"


def test_an_error_gains_its_place_from_inside_out() -> None:
    error = ConfigError("wrong", key="scope")
    assert str(error) == "scope: wrong"
    assert str(error.within("grants.ci")) == "grants.ci.scope: wrong"
    assert str(error.within("grants.ci", "a.toml").within("", "b.toml")) == "a.toml: grants.ci.scope: wrong"
    assert str(ConfigError("wrong", key="[0].user").within("allow")) == "allow[0].user: wrong"
    assert str(ConfigError("wrong").within("", "a.toml")) == "a.toml: wrong"
