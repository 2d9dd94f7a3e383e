# The manual pages: prose of man/, with what the code knows in its place. For `brokerctl install` and for packages;
# `python -m brokerd.ctl.manual DIR` writes them into a folder.
from __future__ import annotations

import re
import sys
from argparse import PARSER, SUPPRESS
from pathlib import Path

from brokerd.ctl import troff
from brokerd.ctl.arguments import EXIT_CODES, every_parser, make_parser

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Action, ArgumentParser
    from collections.abc import Callable, Iterator

PROSE = Path(__file__).parent / "man"
TITLE = re.compile(r"# (?P<name>[\w.]+)\((?P<section>\d)\): (?P<words>.*)\n")
WORD = re.compile(r"(?<![\w-])(?:-{0,2}[a-z][\w-]*|[A-Z][A-Z0-9-]*)(?![\w-])")  # of a usage: typed, or stood for
DETAILS = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)  # a command, and what there is to know of it


def pages() -> dict[str, str]:
    """The pages by the names of their files (`brokerd.8`), as man(7)."""
    from brokerd import __version__

    made = {}
    for file in sorted(PROSE.glob("*.[1-8].md")):
        text = file.read_text(encoding="utf-8")
        found = TITLE.match(text)
        assert found, f"{file.name} begins with a title such as # brokerd(8): what it is for"
        head = troff.title(found["name"], found["section"], found["words"], __version__)
        made[file.stem] = troff.page(head, troff.from_markdown(text[found.end() :], PIECES))
    return made


def main() -> None:
    """Write them into the folder that is named, which is made."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _commands() -> str:
    """Every command: how it is typed, what it does, what there is to know besides, its arguments."""
    details = dict(DETAILS.findall(_prose("commands")))
    made = []
    for name, parser in every_parser(make_parser()).items():
        made += [troff.subsection(name), troff.paragraph(_usage(parser)), troff.paragraph(_text(parser.description))]
        made += [troff.from_markdown(details.get(name, ""), {}), *_arguments(parser)]
    return "\n".join(filter(None, made))


def _usage(parser: ArgumentParser) -> str:
    """As argparse has it, in the fonts of manual pages."""
    text = " ".join(parser.format_usage().split()).removeprefix("usage: ").replace(" [-h]", "")
    return troff.ascii_of(WORD.sub(lambda found: (troff.bold if found[0].islower() else troff.italic)(found[0]), text))


def _arguments(parser: ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if "--help" not in action.option_strings and action.nargs != PARSER and action.help != SUPPRESS:
            yield troff.tagged(_tag(action), _text(action.help and formatter._expand_help(action)))


def _tag(action: Action) -> str:
    """`--min-ttl N`, `GRANT`, `{bash,zsh,fish}`."""
    value = "|".join(map(troff.bold, action.choices)) if action.choices else troff.italic(str(action.metavar))
    if not action.option_strings:
        return value
    options = ", ".join(map(troff.bold, action.option_strings))
    return options if action.nargs == 0 else f"{options} {value}"


def _text(words: str | None) -> str:
    """Words of the program, which are no Markdown."""
    return troff.escape(words or "")


def _exit_codes() -> str:
    return "\n".join(troff.tagged(troff.bold(str(code)), _text(words)) for code, words in EXIT_CODES.items())


def _options_of_brokerctl() -> str:
    return "\n".join(_arguments(make_parser()))


def _options_of_brokerd() -> str:
    from brokerd.daemon import parser

    return "\n".join(_arguments(parser()))


def _usage_of_brokerd() -> str:
    from brokerd.daemon import parser

    return troff.paragraph(_usage(parser()))


def _configuration() -> str:
    """docs/configuration.md but for its title: the source of brokerd.toml(5)."""
    return troff.from_markdown(_prose("configuration").partition("\n")[2], {})


def _prose(name: str) -> str:
    return (PROSE / f"{name}.md").read_text(encoding="utf-8")


PIECES: dict[str, Callable[[], str]] = {
    "commands": _commands,
    "options of brokerctl": _options_of_brokerctl,
    "options of brokerd": _options_of_brokerd,
    "usage of brokerd": _usage_of_brokerd,
    "exit codes": _exit_codes,
    "configuration": _configuration,
}

if __name__ == "__main__":
    main()
