# The manual pages in brokerd/man, made by pandoc of the Markdown in this folder and of what the code knows: `make man`.
# Each page begins with a digest of its sources and of itself, so that a stale or edited page is found without pandoc.
from __future__ import annotations

import re
from argparse import PARSER, SUPPRESS, Action, ArgumentParser
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from brokerd import __version__
from brokerd.ctl.arguments import EXIT_CODES, every_parser, make_parser
from brokerd.daemon.main import parser as parser_of_brokerd
from brokerd.proxy.main import parser as parser_of_proxy

HERE = Path(__file__).parent
PAGES = HERE.parents[1] / "brokerd" / "man"
FILTER = HERE / "page.lua"
NAMES = (
    *("bazel-credential-brokerd.1", "brokerctl.1", "docker-credential-brokerd.1", "git-credential-brokerd.1"),
    *("brokerd.8", "brokerd.toml.5", "brokerd-files.toml.5", "helpers.toml.5"),
    *("brokerd-proxy.8", "brokerd-proxy.toml.5"),
)
REQUESTS = (".nh", ".nr HY 0", ".ad l")  # a path that is hyphenated cannot be copied; no gaps between words
READER = "gfm+definition_lists-smart"
TITLE = re.compile(r"# (?P<name>[\w.-]+)\((?P<section>\d)\): (?P<words>.*)\n")
DETAILS = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)  # a command, and its section in commands.md
DIGEST = re.compile(r'\.\\" sources and page: SHA-256 (\w{64})\n')
WORD = re.compile(r"(?<![\w-])(?:-{0,2}[a-z][\w-]*|[A-Z][A-Z0-9-]*)(?![\w-])")  # of a usage line


def main() -> None:
    """Write every page."""
    PAGES.mkdir(exist_ok=True)
    for name in NAMES:
        (PAGES / name).write_text(page(name), encoding="utf-8")


def page(name: str) -> str:
    """The page as pandoc makes it now."""
    import pypandoc

    found = TITLE.match(_read(name))
    assert found, f"{name}.md: expected a title such as # brokerd(8): what it is for"
    metadata = {"title": found["name"].upper(), "section": found["section"], "footer": f"brokerd {__version__}"}
    options = [f"--metadata={key}={value}" for key, value in metadata.items()]
    options += [f"--variable=header-includes={request}" for request in REQUESTS]
    options += ["--standalone", "--shift-heading-level-by=-1", "--columns=78", f"--lua-filter={FILTER}"]
    made: str = pypandoc.convert_text(markdown(name), "man", format=READER, extra_args=options)
    return f'.\\" sources and page: SHA-256 {digest(name, made)}\n{made}'


def is_current(name: str) -> bool:
    """Whether the page in brokerd/man is what `make man` wrote, and its sources have not changed since."""
    text = (PAGES / name).read_text(encoding="utf-8")
    found = DIGEST.match(text)
    return found is not None and found[1] == digest(name, text[found.end() :])


def digest(name: str, made: str) -> str:
    return sha256("\0".join((__version__, FILTER.read_text(), markdown(name), made)).encode()).hexdigest()


def markdown(name: str) -> str:
    """The page's whole source: what the code knows stands where <!-- a piece --> is named."""
    text = _read(name)
    found = TITLE.match(text)
    assert found
    text = f"## Name\n\n{found['name']} - {found['words']}\n{text[found.end() :]}"
    return re.sub(r"^<!-- ([\w ]+) -->$", lambda piece: PIECES[piece[1]](), text, flags=re.MULTILINE)


def details() -> dict[str, str]:
    """What commands.md says of commands, by their names."""
    return dict(DETAILS.findall(_read("commands")))


def _commands() -> str:
    """Every command: its usage, what it does, its section of commands.md, its arguments."""
    made = []
    for name, parser in every_parser(make_parser()).items():
        words = details().get(name, "")
        made += [f"### {name}", _usage(parser), _plain(parser.description), words, _arguments(parser)]
    return "\n\n".join(made)


def _usage(parser: ArgumentParser) -> str:
    """argparse's usage line: what is typed is bold, what is replaced by something is italic."""
    text = " ".join(parser.format_usage().split()).removeprefix("usage: ").replace(" [-h]", "")
    parts, at = [], 0
    for found in WORD.finditer(text):
        mark = "**" if found[0].strip("-")[0].islower() else "*"
        parts += [_plain(text[at : found.start()]), f"{mark}{_plain(found[0])}{mark}"]
        at = found.end()
    return "".join((*parts, _plain(text[at:])))


def _arguments(parser: ArgumentParser) -> str:
    formatter = parser._get_formatter()
    return "\n\n".join(
        f"{_term(action)}\n\n:   {_plain(formatter._expand_help(action))}"
        for action in parser._actions
        if "--help" not in action.option_strings and action.nargs != PARSER and action.help not in (None, SUPPRESS)
    )


def _term(action: Action) -> str:
    """`--min-ttl N`, `GRANT`, `bash|zsh|fish`."""
    choices = action.choices or ()
    value = r"\|".join(f"**{_plain(each)}**" for each in choices) or f"*{_plain(str(action.metavar))}*"
    if not action.option_strings:
        return value
    options = ", ".join(f"**{_plain(each)}**" for each in action.option_strings)
    return options if action.nargs == 0 else f"{options} {value}"


def _plain(words: str | None) -> str:
    """Words of the program, which are not Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", words or "")


def _exit_codes() -> str:
    return "\n\n".join(f"**{code}**\n\n:   {_plain(words)}" for code, words in EXIT_CODES.items())


def _document(name: str) -> str:
    """A page of docs/ but for its title."""
    return (HERE.parent / f"{name}.md").read_text(encoding="utf-8").partition("\n")[2]


def _read(name: str) -> str:
    return (HERE / f"{name}.md").read_text(encoding="utf-8")


PIECES: dict[str, Callable[[], str]] = {
    "commands": _commands,
    "options of brokerctl": lambda: _arguments(make_parser()),
    "options of brokerd": lambda: _arguments(parser_of_brokerd()),
    "usage of brokerd": lambda: _usage(parser_of_brokerd()),
    "exit codes": _exit_codes,
    "configuration": lambda: _document("configuration"),
    "options of brokerd-proxy": lambda: _arguments(parser_of_proxy()),
    "usage of brokerd-proxy": lambda: _usage(parser_of_proxy()),
    "proxy": lambda: _document("proxy"),
    "files": lambda: _document("files"),
    "helpers": lambda: _document("helpers"),
}

if __name__ == "__main__":
    main()
