# Reads a large TOML file in pieces: the parser needs three times the memory of what it returns, and that ten times the
# memory of what is written; a file may have a hundred thousand grants. The result is that of the whole file, which is
# read whole where that is not certain.
from __future__ import annotations

import marshal
import re
from collections.abc import Iterator
from typing import Any

import tomli

PIECE = 1 << 20  # characters, or somewhat more
TABLES = "grants"  # the tables between which a file is cut
HEADER = re.compile(rf"^\[{TABLES}\.([A-Za-z0-9_-]+)\][ \t]*\r?$", re.MULTILINE)
# It may stand in a file once, which pieces alone do not show.
ALL = re.compile(rf"""^[ \t]*\[[ \t]*["']?{TABLES}["']?[ \t]*\]""", re.MULTILINE)


def loads(text: str, piece: int = PIECE, *, pack: bool = False) -> dict[str, Any]:
    """As tomli.loads reads it, and with its errors. `pack`: the tables of grants of a large file may be packed; see
    `unpacked`."""
    if len(text) > piece and (first := HEADER.search(text)) and not ALL.search(text):
        try:
            if (found := _joined(text, first, piece, pack)) is not None:
                return found
        except tomli.TOMLDecodeError:
            pass  # a piece may end within a text of several lines; if the file is wrong, the error names its line
    return tomli.loads(text)


def unpacked(table: Any) -> Any:
    """A table of a grant, which takes a tenth of the memory while it is packed."""
    return marshal.loads(table) if type(table) is bytes else table  # noqa: S302 - `_packed` made it, in this process


def _packed(table: Any) -> Any:
    try:
        return marshal.dumps(table)
    except ValueError:  # it has a date, which marshal does not know
        return table


def _joined(text: str, first: re.Match[str], piece: int, pack: bool) -> dict[str, Any] | None:
    """The tables of all pieces. None: one table is in two of them. Raises tomli.TOMLDecodeError."""
    whole = tomli.loads(text[: first.end()])  # with the first header: what stands before may forbid it
    taken = whole[TABLES]
    if not isinstance(taken, dict) or taken.pop(first[1]):
        return None
    for part in _pieces(text, first.start(), piece):
        found = tomli.loads(part)
        tables = found.pop(TABLES)
        if found.keys() & whole.keys() or tables.keys() & taken.keys():
            return None
        whole |= found
        taken |= {name: _packed(table) for name, table in tables.items()} if pack else tables
    return whole


def _pieces(text: str, begin: int, piece: int) -> Iterator[str]:
    """Each begins with the header of a grant. What the parser can read up to a header is complete, because it reads
    statement by statement."""
    while begin < len(text):
        header = HEADER.search(text, begin + piece)
        end = header.start() if header else len(text)
        yield text[begin:end]
        begin = end
