# On which line of a TOML file a key stands. tomli knows the lines of syntax errors only, and tomlkit knows none, so the
# text is searched here after a mistake was found. Pure.
from __future__ import annotations

import re
from collections.abc import Iterator

STRINGS = r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
TOKEN = re.compile(rf"{STRINGS}|#[^\n]*|\n|[\[\]{{}}]|[^\"'#\n\[\]{{}}]+|.", re.DOTALL)
NAME = r'(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
NAMES = rf"{NAME}(?:[ \t]*\.[ \t]*{NAME})*"
HEADER = re.compile(rf"(\[\[?)[ \t]*({NAMES})[ \t]*\]")
KEY = re.compile(rf"({NAMES})[ \t]*=")
SYNTAX = re.compile(r"at line (\d+)")  # in what tomli says


def line_of(text: str, key: str) -> int | None:
    """The line of a key such as `grants.app.scope` or `allow[1].caller.user`; if the key is not there or is in an
    inline table, the line of what contains it."""
    best, found = "", None
    for path, line in _paths(text):
        inside = key == path or (key.startswith(path) and key[len(path)] in ".[")
        if inside and len(path) > len(best):
            best, found = path, line
    return found


def line_of_syntax(message: str) -> int | None:
    """The line that an error of tomli's names."""
    return int(found[1]) if (found := SYNTAX.search(message)) else None


def _paths(text: str) -> Iterator[tuple[str, int]]:
    """Every header and every key on a line of its own, as a path, and its line."""
    table, counts = "", dict[str, int]()
    for line, statement in _statements(text):
        if header := HEADER.match(statement):
            table = _joined(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            yield table, line
        elif named := KEY.match(statement):
            yield f"{table}.{_joined(named[1])}".lstrip("."), line


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements, which strings and brackets may extend over several lines, without comments; each with its
    line."""
    line = begun = 1
    depth, parts = 0, list[str]()
    for found in TOKEN.finditer(text):
        piece = found[0]
        if piece == "\n" and depth <= 0:
            if statement := "".join(parts).strip():
                yield begun, statement
            depth, parts = 0, []
        elif not piece.startswith("#"):
            if not parts and piece.strip():
                begun = line
            if parts or piece.strip():
                parts.append(piece)
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece, 0)
        line += piece.count("\n")
    if statement := "".join(parts).strip():
        yield begun, statement


def _joined(names: str) -> str:
    """A path without quotes, as errors write it."""
    return ".".join(each[1:-1] if each[0] in "\"'" else each for each in re.findall(NAME, names))
