from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from brokerd.config import toml_pieces

LINES = (
    *(
        "[grants.a]",
        "[grants.b]",
        "[grants.c] ",
        "[grants.a.settings]",
        "[ grants . d ]",
        '[grants."e.f"]',
        "[grants]",
        "[[grants]]",
    ),
    *(
        "[daemon]",
        "[providers.p]",
        "[[allow]]",
        "[[allow]]",
        "grants.g.x = 1",
        "grants = {}",
        "allow = []",
        'grants = ["*"]',
    ),
    *(
        "x = 1",
        "y = 'z'",
        'a.b = "c"',
        "text = '''",
        "'''",
        'more = """',
        '"""',
        "list = [",
        "[1],",
        "]",
        "# comment",
        "",
    ),
    *('credentials = { id = "1" }', "broken", "when = 2026-11-29T08:00:00Z", "x = 'unfinished"),
)


def read(loads: Any, *arguments: Any) -> object:
    try:
        return loads(*arguments)
    except tomli.TOMLDecodeError as error:
        return str(error)


@given(st.lists(st.sampled_from(LINES), max_size=20), st.integers(1, 60), st.sampled_from(["\n", "\r\n"]))
@example(["[grants.a]", "text = '''", "[grants.b]", "'''", "[grants.c]"], 1, "\n")
@example(["[grants.a]", "list = [", "[grants.b]", "]"], 1, "\n")
@example(["[grants.a.settings]", "[grants.a]"], 1, "\n")
@example(["grants = {}", "[grants.a]", "[grants.b]"], 1, "\n")
def test_a_file_in_pieces_is_the_whole_file(lines: list[str], piece: int, ending: str) -> None:
    text = ending.join(lines)
    assert read(toml_pieces.loads, text, piece) == read(tomli.loads, text)
    packed = read(lambda: toml_pieces.loads(text, piece, pack=True))
    if isinstance(packed, dict) and isinstance(packed.get("grants"), dict):
        packed["grants"] = {name: toml_pieces.unpacked(each) for name, each in packed["grants"].items()}
    assert packed == read(tomli.loads, text)


def test_the_order_of_tables_is_that_of_the_file() -> None:
    text = "\n".join(f"[grants.g{number}]\nn = {number}" for number in range(100))
    assert list(toml_pieces.loads(text, 50)["grants"]) == list(tomli.loads(text)["grants"])


def test_a_large_file_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[daemon]\nx = 1\n[[allow]]\ngrants = ['*']\n" + "\n".join(
        f"[grants.g{number}]\nn = {number}" for number in range(1000)
    )
    largest = []
    loads = tomli.loads
    monkeypatch.setattr(tomli, "loads", lambda part: largest.append(len(part)) or loads(part))
    assert len(toml_pieces.loads(text, 1000)["grants"]) == 1000
    assert max(largest) < 1100
