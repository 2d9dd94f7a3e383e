# How text looks on this terminal: its width, colours, and whether it can show more than ASCII. It knows no grants.
from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from shutil import get_terminal_size
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
# What people copy is not broken inside a word: a command up to where its sentence goes on, else its first two words.
PROGRAMS = r"brokerctl|brokerd(?= -)|ch(?:mod|own)|df|dmesg|journalctl|resolvectl|ss|systemctl|timedatectl|usermod"
WORD = "[^ ;,)]*[^ ;,):]"
COMMAND = re.compile(
    rf"(?<![\w/.-])(?:{PROGRAMS})(?:(?: {WORD}){{1,8}}?(?=$|[;,)]| or )|(?: --\S+ \S+)* {WORD}|(?=$|[;,)]))"
)
GOES_ON = " \\"  # at the end of a line of a command
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
        fit is cut. A command that is too long for a line goes on in the next one as a shell reads it. Only a word of it
        that is longer than a line, or letters that take two columns, make a line too wide."""
        columns = max(20, self.columns - indent) + indent
        text = text if self.utf8 else text.translate(ASCII_ONLY)
        found, line = list[str](), " " * indent
        begin = line
        for part in _parts(text, columns - indent - hanging):
            joined = line + part if line == begin else f"{line} {part}"
            if line != begin and (len(joined) > columns or line.endswith(GOES_ON)):
                found.append(line)
                begin = " " * (indent + hanging)
                joined = begin + part
            line = joined
        found.append(line)
        if lines is None or len(found) <= lines:
            return found
        more = "…" if self.utf8 else "..."
        return [*found[: lines - 1], found[lines - 1][: self.columns - len(more)].rstrip() + more]


def _parts(text: str, room: int) -> Iterator[str]:
    """What is not broken: words, and commands that fit into a line."""
    at = 0
    for found in COMMAND.finditer(text):
        yield from _words(text[at : found.start()], room)
        behind = text[found.end() :].split(" ", 1)[0]  # what follows without a blank, such as a semicolon
        at = found.end() + len(behind)
        yield from _command(found[0] + behind, room)
    yield from _words(text[at:], room)


def _words(text: str, room: int) -> Iterator[str]:
    for word in text.split():
        yield from (word[start : start + room] for start in range(0, len(word), room))


def _command(text: str, room: int) -> Iterator[str]:
    line, words = "", text.split()
    for number, word in enumerate(words):
        is_end = len(" ".join((line, *words[number:])).lstrip()) <= room
        if line and not is_end and len(f"{line} {word}{GOES_ON}") > room:
            yield line + GOES_ON
            line = word
        else:
            line = f"{line} {word}".lstrip()
    yield line


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
