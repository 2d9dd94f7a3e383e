# Formats of files: whatever a token holds, its reader gets it back whole, and nothing else.
from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.files.contents import FORMATS, Contents, Values
from brokerd.core.files.template import Unfit

GIVEN = Values(
    "app", "tok-1", "Bearer", 1_900_000_000.0, {"Authorization": "Bearer tok-1"}, {"instance_url": "https://x"}
)
ANY = st.text(min_size=1, max_size=40)
NASTY = st.text(alphabet="ab\"'\\$`!#;{}<>&|= \n\r\t\0\u2028é", min_size=1, max_size=20)
PRINTABLE = st.text(alphabet="ab\"'\\$`!#;{}<>&|= é~*?[]()%^", min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("name", "newline", "text"),
    [
        ("token", False, "tok-1"),
        ("token", True, "tok-1\n"),
        ("header", True, "Authorization: Bearer tok-1\n"),
        ("env", True, "ACCESS_TOKEN=tok-1\nTOKEN_TYPE=Bearer\nEXPIRES_AT=1900000000\nFIELD_INSTANCE_URL=https://x\n"),
    ],
)
def test_each_format_is_as_documented(name: str, newline: bool, text: str) -> None:
    assert Contents(name, None, newline).of(GIVEN).decode() == text


def test_json_is_as_documented() -> None:
    assert json.loads(Contents("json").of(GIVEN)) == {
        "grant": "app",
        "access_token": "tok-1",
        "token_type": "Bearer",
        "expires_at": 1_900_000_000.0,
        "fields": {"instance_url": "https://x"},
    }


@given(ANY | NASTY)
def test_json_gives_back_every_value(value: str) -> None:
    made = Contents("json").of(replace(GIVEN, access_token=value, fields={value: value}))
    assert b"\n" not in made
    assert (found := json.loads(made))["access_token"] == value
    assert found["fields"] == {value: value}


@given(ANY | NASTY)
def test_a_header_is_one_line_or_refused(value: str) -> None:
    values = replace(GIVEN, header={"Authorization": f"Bearer {value}"})
    if value.isprintable():
        assert Contents("header").of(values).decode().splitlines() == [f"Authorization: Bearer {value}"]
    else:
        with pytest.raises(Unfit):
            Contents("header").of(values)


@given(NASTY)
def test_env_has_only_its_own_lines_or_is_refused(value: str) -> None:
    values = replace(GIVEN, access_token=value, fields={"x": value})
    if not value.isprintable():
        with pytest.raises(Unfit):
            Contents("env").of(values)
        return
    lines = Contents("env").of(values).decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["ACCESS_TOKEN", "TOKEN_TYPE", "EXPIRES_AT", "FIELD_X"]
    assert systemd_reads(lines[0].partition("=")[2]) == value


def systemd_reads(text: str) -> str:
    """As parse_env_file of systemd does: within double quotes a backslash escapes four characters."""
    if not text.startswith('"'):
        assert re.fullmatch(r"[^\s\"'\\#;$`]+", text)
        return text
    assert text.endswith('"')
    assert re.fullmatch(r'(?:[^"\\]|\\.)*', text[1:-1])
    return re.sub(r'\\(["\\$`])', r"\1", text[1:-1])


def test_a_shell_reads_env_back() -> None:
    """One real shell for many values."""
    values = [
        "$(id)",
        "`id`",
        '"; id; "',
        "a'b",
        "\\",
        "\\\\n",
        "${HOME}",
        "!x",
        "# x",
        " x ",
        "a\\",
        'é"$',
        "*",
        "~",
        "-n",
    ]
    files = [Contents("env").of(replace(GIVEN, access_token=each)).decode() for each in values]
    script = "\n".join(f'{each}\nprintf "%s\\n" "$ACCESS_TOKEN"' for each in files)
    done = subprocess.run(["/bin/sh", "-eu"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == values


def test_no_field_becomes_a_variable_that_programs_obey() -> None:
    made = Contents("env").of(replace(GIVEN, fields={"path": "/evil", "LD_PRELOAD": "x", "a b\n=c": "y"})).decode()
    assert [line.partition("=")[0] for line in made.splitlines()][3:] == [
        "FIELD_PATH",
        "FIELD_LD_PRELOAD",
        "FIELD_A_B__C",
    ]
    with pytest.raises(Unfit, match="FIELD_A_B"):
        Contents("env").of(replace(GIVEN, fields={"a-b": "1", "a_b": "2"}))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\rb", "\x1b[31m"])
def test_an_error_holds_no_value(name: str, value: str) -> None:
    values = replace(GIVEN, access_token=value, header={"Authorization": value})
    if name == "json":
        assert json.loads(Contents(name).of(values))["access_token"] == value
        return
    with pytest.raises(Unfit) as error:
        Contents(name).of(values)
    assert value not in str(error.value)
    assert "tok-1" not in repr(GIVEN)
