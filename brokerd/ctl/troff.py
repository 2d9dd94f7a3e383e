# Text of docs/ and of the program as man(7), which troff and mandoc read. The Markdown is the part of it that our pages
# are written in; a table becomes a list, whose tags are the cells of its first column.
from __future__ import annotations

import re
from textwrap import wrap

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WIDTH = 78  # columns of the source; mandoc(1) wants 80 at most
BLOCK = re.compile(
    r"""^```\w*\n(?P<fenced>(?:.*\n)*?)```$
    | ^(?P<heading>\#+\ .*)$
    | ^<!--\ (?P<piece>[\w ]+)\ -->$
    | (?P<table>(?:^\|.*(?:\n|\Z))+)
    | ^\ {4}(?P<indented>.*(?:\n+\ {4}.*)*)
    | ^(?P<item>(?:-|\d+\.)\ .*(?:\n\ {2,}.*)*)
    | (?P<paragraph>(?:^[^\n]+(?:\n|\Z))+)""",
    re.MULTILINE | re.VERBOSE,
)
SPAN = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*|\*(?P<stress>.+?)\*|\[(?P<link>[^\]]*)\]\((?P<to>[^)\s]+)\)"
)
MANUAL = re.compile(r"\b([a-z][\w.-]*)(?=\([1-8]\))")  # the name in brokerd.toml(5)
SENTENCE = re.compile(
    r'(?<=[.?!])\s+(?=[A-Z"\\(]|brokerd)'
)  # troff puts more space between sentences where a line ends


def from_markdown(text: str, pieces: Mapping[str, Callable[[], str]]) -> str:
    """`pieces`: what stands for `<!-- name -->`, in man(7) already."""
    made = []
    for block in BLOCK.finditer(text):
        kind, found = str(block.lastgroup), block[block.lastgroup or 0]
        match kind:
            case "heading":
                made.append(_heading(found))
            case "piece":
                made.append(pieces[found]())
            case "fenced":
                made.append(example(found.rstrip("\n")))
            case "indented":
                made.append(example(re.sub(r"^ {4}", "", found, flags=re.MULTILINE)))
            case "table":
                made += _table(found)
            case "item":
                mark, _, words = found.partition(" ")
                made.append(f".IP {_mark(mark)}\n{fill(inline(words))}")
            case _:
                made.append(paragraph(inline(found)))
    return "\n".join(made)


def page(head: str, body: str) -> str:
    """The whole; a heading begins a paragraph by itself."""
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", f"{head}\n{body}\n", flags=re.MULTILINE)


def title(name: str, section: str, words: str, version: str) -> str:
    head = f'.TH "{name.upper()}" {section} "" "brokerd {version}" "brokerd"'
    return "\n".join((head, *PLAIN, '.SH "NAME"', rf"{name} \- {escape(words)}"))


def section(words: str) -> str:
    return f'.SH "{_quoted(words)}"'


def subsection(words: str) -> str:
    return f'.SS "{_quoted(words)}"'


def paragraph(made: str) -> str:
    return f".PP\n{fill(made)}"


def tagged(tag: str, made: str) -> str:
    """A paragraph that hangs below its tag."""
    return f".TP\n{tag}\n{fill(made)}"


def example(text: str) -> str:
    lines = (_guarded(literal(line)) for line in text.splitlines())
    return ".PP\n.RS 4\n.EX\n" + "\n".join(lines) + "\n.EE\n.RE"


def bold(text: str) -> str:
    return rf"\fB{literal(text)}\fR"


def italic(text: str) -> str:
    return rf"\fI{literal(text)}\fR"


def inline(text: str, font: str = "R") -> str:
    """A paragraph's text with its code, stress and links."""
    made, at = [], 0
    for span in SPAN.finditer(text):
        made.append(_plain(text[at : span.start()], font))
        match str(span.lastgroup):
            case "code":
                made.append(rf"\fB{literal(span['code'])}\f{font}")
            case "strong":
                made.append(rf"\fB{inline(span['strong'], 'B')}\f{font}")
            case "stress":
                made.append(rf"\fI{inline(span['stress'], 'I')}\f{font}")
            case _:
                made.append(inline(_link(span["link"], span["to"]), font))
        at = span.end()
    return "".join((*made, _plain(text[at:], font)))


def fill(made: str) -> str:
    """Lines of the source: a sentence begins a line, and none is too long."""
    lines = []
    for sentence in SENTENCE.split(" ".join(made.split())):
        lines += wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_guarded, lines))


def escape(text: str) -> str:
    """Prose: a hyphen may become one that is typographically right."""
    return ascii_of(text.replace("\\", r"\e"))


def ascii_of(made: str) -> str:
    """Whatever the reader's locale is."""
    return "".join(c if c.isascii() else INSTEAD.get(c, f"\\[u{ord(c):04X}]") for c in made)


def literal(text: str) -> str:
    """What is typed: it can be copied from the page."""
    return re.sub("[-'`^~]", lambda found: LITERAL[found[0]], escape(text))


def _plain(text: str, font: str) -> str:
    return MANUAL.sub(rf"\\fB\1\\f{font}", escape(text))


def _link(words: str, to: str) -> str:
    """Within the page it is its words; else they are followed by where it leads to, as a path in brokerd's source."""
    if to.startswith("#"):
        return words
    if re.match(r"[a-z]+:", to):
        return f"{words} ({to})"
    path = to.partition("#")[0]
    path = path.removeprefix("../") if path.startswith("../") else f"docs/{path}"
    return path if words in path else f"{words} ({path})"


def _heading(found: str) -> str:
    level, _, words = found.partition(" ")
    if level == "##":
        return section(words if words.startswith("[") else words.upper())
    return subsection(words) if level == "###" else paragraph(rf"\fB{escape(words)}\fR")


def _table(found: str) -> Iterator[str]:
    """Each row: its first cell, of the others but the last what they are, and the last below."""
    head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in found.splitlines())
    for first, *middle, last in rows:
        said = [_said(name, cell) for name, cell in zip(head[1:-1], middle, strict=True) if cell not in ("–", "")]
        tag = inline(first) + (f" ({', '.join(said)})" if said else "")
        yield tagged(tag, inline(last))


def _said(name: str, cell: str) -> str:
    if name == "type" or cell == "required":
        return inline(cell)
    return f"{inline(name)} {inline(cell)}" if name == "default" else f"{inline(name)}: {inline(cell)}"


def _mark(mark: str) -> str:
    return r"\(bu 2" if mark == "-" else f"{mark} 4"


def _quoted(words: str) -> str:
    return escape(words.replace("`", "")).replace('"', r"\(dq")


def _guarded(line: str) -> str:
    """A line that begins like a request is none."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


PLAIN = (
    ".nh",
    ".nr HY 0",
    ".ad l",
)  # no hyphen within a path or a key, which could not be copied then; no gaps between words
INSTEAD = {"…": "...", "§": r"section\~"}  # what terminals without Unicode lack
LITERAL = {"-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
