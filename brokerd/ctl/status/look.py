# How text looks on this terminal: its width, colours, and whether it can show more than ASCII. It knows no grants.
from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from shutil import get_terminal_size
from textwrap import wrap
from typing import NamedTuple

from brokerd.core.grant.condition import Tone

UNWRAPPED = 2_000  # columns if a program reads the output: it finds a sentence in one line
STYLES = {
    Tone.BAD: "31",
    Tone.WARN: "33",
    Tone.GOOD: "32",
    Tone.OFF: "35",
    "remedy": "1",
    "heading": "1",
    "dim": "2",
}
ASCII_SIGNS = {Tone.BAD: "X", Tone.WARN: "!", Tone.GOOD: "+", Tone.OFF: "-"}
NO_BREAK = "\0"  # stands for a blank inside a command, which people copy: it is printed in one line
COMMAND = re.compile(r"\bbrokerctl(?: --\S+ \S+)* [^ ;,]+(?: [^ ;,]+(?=$|[;,]| or ))?")
ASCII_ONLY = str.maketrans({"…": "...", "–": "-", "×": "x"})


class Look(NamedTuple):
    columns: int
    colour: bool = False
    utf8: bool = True

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.colour and text else text

    def sign(self, tone: Tone) -> str:
        return self.paint(tone.sign if self.utf8 else ASCII_SIGNS[tone], tone)

    def wrapped(self, text: str, indent: int, hanging: int = 0, lines: int | None = None) -> list[str]:
        """The text in lines of this width, `hanging` further to the right after the first. With `lines`, what does not
        fit is cut. Only text of others can be too wide for its line: a word that is longer than a line, or letters that
        take two columns."""
        width = max(20, self.columns - indent)
        first, rest = " " * indent, " " * (indent + hanging)
        text = COMMAND.sub(lambda found: found[0].replace(" ", NO_BREAK), text)
        found = [
            line.replace(NO_BREAK, " ")
            for line in wrap(
                text if self.utf8 else text.translate(ASCII_ONLY),
                width + indent,
                initial_indent=first,
                subsequent_indent=rest,
                break_on_hyphens=False,
            )
        ]
        if lines is None or len(found) <= lines:
            return found
        more = "…" if self.utf8 else "..."
        return [*found[: lines - 1], found[lines - 1][: self.columns - len(more)].rstrip() + more]


def look_of_output(environ: Mapping[str, str]) -> Look:
    """How stdout looks (https://no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = get_terminal_size().columns if is_terminal else UNWRAPPED
    colour = is_terminal and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return Look(max(columns, 1), colour, "utf8" in locale.lower().replace("-", ""))


def cells(text: str) -> int:
    """How many columns the text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else unicodedata.combining(each) == 0 for each in text)


def padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))
