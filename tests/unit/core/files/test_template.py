# Templates: what they say about their mistakes, and that no token breaks out of one.
from __future__ import annotations

import json
import shlex
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.files.template import FILTERS, HARMLESS, Unfit, read_template
from brokerd.core.validation import ConfigError

ANY = st.text(alphabet=st.characters() | st.sampled_from("\"'\\$`;{}\n\0 <>&#"), max_size=20)


def filled(template: str, value: str, **fields: str) -> str:
    return read_template(template).of(
        {"access_token": value, **{f"fields.{name}": each for name, each in fields.items()}}
    )


def test_a_template_is_filled() -> None:
    template = 'proxy_set_header Authorization "Bearer {access_token}";\nset $u {fields.url}; # {{as it is}}\n'
    assert filled(template, "a.b-c_d~e+f/g=", url="https://x.example:8443/p") == (
        'proxy_set_header Authorization "Bearer a.b-c_d~e+f/g=";\nset $u https://x.example:8443/p; # {as it is}\n'
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{acces_token}",
            "unknown placeholder {acces_token}; known: {access_token}, {token_type}, {expires_at}, {grant}",
        ),
        ("{}", "unknown placeholder {}"),
        ("{fields.}", "unknown placeholder {fields.}"),
        ("{access_token!r}", "unknown placeholder {access_token!r}"),
        ("{access_token.__class__}", "unknown placeholder"),
        ("{access_token:html}", "unknown filter :html of {access_token}; known: json, shell, env, url, line"),
        ("{access_token:}", "unknown filter : of"),
        ("a\nb { {access_token}", "a single { in line 2"),
        ("{access_token} }", "a single } in line 1"),
        ("no placeholder", "expected a placeholder"),
        ("{{access_token}}", "expected a placeholder"),
    ],
)
def test_a_mistake_is_named_with_what_is_known(template: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_template(template)
    assert words in str(error.value)


@given(ANY)
def test_without_a_filter_a_value_means_nothing_to_any_language(value: str) -> None:
    if HARMLESS.fullmatch(value):
        assert filled("[{access_token}]", value) == f"[{value}]"
    else:
        with pytest.raises(Unfit, match=r"write \{access_token:FILTER\}"):
            filled("[{access_token}]", value)


@given(ANY)
def test_a_filtered_value_is_read_back_whole(value: str) -> None:
    assert json.loads(filled('{{"a": {access_token:json}}}', value)) == {"a": value}
    assert (
        unquote(filled("{access_token:url}", value.encode(errors="ignore").decode()))
        == value.encode(errors="ignore").decode()
    )
    if value.isprintable():
        assert shlex.split(filled("x={access_token:shell} y", value)) == [f"x={value}", "y"]
        assert filled("{access_token:line}", value) == value
    else:
        for each in ("shell", "env", "line"):
            with pytest.raises(Unfit):
                filled(f"{{access_token:{each}}}", value)


@given(ANY)
def test_a_value_is_no_template(value: str) -> None:
    assert filled("{access_token:json}{fields.x:json}", "{fields.x}", x=value) == json.dumps("{fields.x}") + json.dumps(
        value
    )


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(Unfit, match=r"has no fields\.instance_url; it has access_token, fields\.region"):
        filled("{fields.instance_url}", "secret", region="eu")


@pytest.mark.parametrize("name", FILTERS)
def test_no_error_holds_the_value(name: str) -> None:
    if name not in ("json", "url"):
        with pytest.raises(Unfit) as error:
            filled(f"{{access_token:{name}}}", "sec\nret")
        assert "sec" not in str(error.value)
