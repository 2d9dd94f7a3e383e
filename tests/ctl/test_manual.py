# The manual pages against the code: every command, option, exit code, signal, variable and key stands in its page, the
# tools that read pages find nothing wrong with them, and a wheel has all that they are made of.
from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from argparse import PARSER, SUPPRESS
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from brokerd import ctl, daemon, installation
from brokerd.ctl import fetch, manual, troff
from brokerd.ctl.arguments import COMMANDS, DEFAULT_ENV, EXIT_CODES, WHICH, every_parser, make_parser
from tests.announced import did_not_run
from tests.ctl.conftest import Run
from tests.test_docs import CONFIGURATION

ROOT = Path(__file__).parent.parent.parent
PAGES = manual.pages()
VARIABLE = re.compile(r"[A-Z]+(_[A-Z]+)+|DISPLAY|BROWSER")


def text_of(made: str) -> str:
    """What a reader sees of man(7), in one line for each of the source."""
    text = re.sub(r"\\f[BIR]|\\&", "", made)
    for escaped, shown in (
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\(ga", "`"),
        ("\\(ha", "^"),
        ("\\(ti", "~"),
        ("\\e", "\\"),
        ("\\~", " "),
    ):
        text = text.replace(escaped, shown)
    return re.sub(r"\\\[u([0-9A-F]{4})\]", lambda found: chr(int(found[1], 16)), text)


def under(name: str, heading: str) -> str:
    """What stands in a page under a heading."""
    found = re.search(rf'^\.S[HS] "{re.escape(heading)}"\n(.*?)(?=^\.S[HS] |\Z)', PAGES[name], re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no {heading}"
    return found[1]


def tags(made: str) -> list[str]:
    return [text_of(tag) for tag in re.findall(r"^\.TP\n(.*)\n", made, re.MULTILINE)]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w[\w-]*", text.lower()))


def written(markdown: str) -> set[str]:
    """The words of a text in Markdown that its page has to have: not those of addresses and of tables' heads."""
    text = re.sub(r"^\|.*\n\|[-|]+$|\]\([^)]*\)|^```\w*", "", markdown, flags=re.MULTILINE)
    return words(text.replace("§", "section "))


# -- brokerctl(1)


@pytest.mark.parametrize("name", every_parser(make_parser()))
def test_every_command_and_argument_has_its_help_and_stands_in_the_page(name: str) -> None:
    parser = every_parser(make_parser())[name]
    shown_here = (each for action in parser._actions if action.help != SUPPRESS for each in action.option_strings)
    hidden = {*WHICH} - {*shown_here}  # they stand once in the page, for all commands
    made = under("brokerctl.1", name)
    assert parser.description
    assert parser.description in " ".join(text_of(made).split())
    found = " ".join(tags(made))
    for action in parser._actions:
        if action.nargs == PARSER or "--help" in action.option_strings or {*action.option_strings} & hidden:
            continue
        assert action.help, f"{name} {action.option_strings or action.metavar} lacks its help"
        shown = " ".join(text_of(made).replace("\n", " ").split())
        assert parser._get_formatter()._expand_help(action).replace("…", "...") in shown
        for each in action.option_strings or list(action.choices or [action.metavar]):
            assert each in found, f"{name} {each}"


def test_the_page_has_the_commands_of_help_in_its_order(brokerctl: Run) -> None:
    of_help = re.findall(r"^    ([\w-]+) +\S", brokerctl("--help").stdout.partition("\ncommands:\n")[2], re.MULTILINE)
    of_page = re.findall(r'^\.SS "(.+)"$', PAGES["brokerctl.1"], re.MULTILINE)
    assert of_help == list(COMMANDS) == [name for name in of_page if " " not in name]


def test_what_there_is_to_know_besides_is_about_commands_that_there_are() -> None:
    found = dict(manual.DETAILS.findall((manual.PROSE / "commands.md").read_text()))
    assert set(found) <= set(every_parser(make_parser()))
    for name, text in found.items():
        assert written(text) <= words(text_of(under("brokerctl.1", name))), name


def test_every_exit_code_has_its_words() -> None:
    named = {ctl.OUR_BUG, ctl.USAGE, ctl.REFUSED, ctl.TRY_AGAIN, ctl.OVER, ctl.NO_DAEMON}
    assert set(EXIT_CODES) == {0} | named
    assert tags(under("brokerctl.1", "EXIT STATUS")) == [str(code) for code in EXIT_CODES]
    for code in (ctl.INTERRUPTED, ctl.BROKEN_PIPE, fetch.CANNOT_RUN, fetch.NOT_FOUND):
        assert str(code) in words(under("brokerctl.1", "EXIT STATUS"))


# -- brokerd(8)


def test_every_option_exit_status_and_signal_of_brokerd_stands_in_its_page() -> None:
    options = " ".join(tags(under("brokerd.8", "OPTIONS")))
    for action in daemon.parser()._actions:
        assert action.help
        assert [each for each in action.option_strings if each not in options] in ([], ["-h", "--help"])
    codes = {0, 1, installation.EXIT_CONFIGURATION, installation.EXIT_UNAVAILABLE}
    assert {int(tag) for tag in tags(under("brokerd.8", "EXIT STATUS"))} == codes
    signals = set(re.findall(r"\bsignal\.(SIG\w+)", Path(daemon.__file__).read_text()))
    assert set(re.findall(r"SIG\w+", " ".join(tags(under("brokerd.8", "SIGNALS"))))) == signals


def test_every_message_to_the_service_manager_stands_in_the_page() -> None:
    sent = set()
    for file in (ROOT / "brokerd").rglob("*.py"):
        sent |= set(re.findall(r'\b_?notify\(\s*f?"(?s:([A-Z]+)=)', file.read_text()))
    assert sent >= {"READY", "RELOADING", "WATCHDOG", "STATUS", "STOPPING"}
    assert [each for each in sorted(sent) if f"{each}=" not in text_of(under("brokerd.8", "SERVICE MANAGER"))] == []


# -- brokerd.toml(5)


@pytest.mark.parametrize("struct", CONFIGURATION.values(), ids=lambda struct: struct.__name__)
def test_every_key_of_the_configuration_has_its_paragraph(struct: type[msgspec.Struct]) -> None:
    found = Counter(tag.partition(" ")[0] for tag in tags(PAGES["brokerd.toml.5"]))
    assert [field.encode_name for field in msgspec.structs.fields(struct) if not found[field.encode_name]] == []


def test_no_word_of_the_configuration_s_description_is_lost() -> None:
    source = (ROOT / "docs" / "configuration.md").read_text().partition("\n")[2]
    assert written(source) - words(text_of(PAGES["brokerd.toml.5"])) == set()


# -- all of them


def variables() -> dict[str, str]:
    """Variables of the environment, each with a file that names it where it looks into that."""
    found = {DEFAULT_ENV: "arguments.py"}
    for file in (*(ROOT / "brokerd").rglob("*.py"), *(ROOT / "client" / "brokerd_client").rglob("*.py")):
        source = file.read_text()
        for node in ast.walk(ast.parse(source)) if "environ" in source else ():
            looks: ast.AST = node.test if isinstance(node, ast.If | ast.While) else node
            if isinstance(looks, ast.expr | ast.For | ast.Assign | ast.Return) and "environ" in ast.unparse(looks):
                strings = (each.value for each in ast.walk(looks) if isinstance(each, ast.Constant))
                names = (each for each in strings if isinstance(each, str) and VARIABLE.fullmatch(each))
                found |= dict.fromkeys(names, file.name)
    return found


def test_every_variable_of_the_environment_stands_in_a_page() -> None:
    found = variables()
    assert {"BROKERD_SOCKET", "STATE_DIRECTORY", "LISTEN_FDNAMES", "DISPLAY"} <= set(found)
    named = words(text_of(under("brokerd.8", "ENVIRONMENT") + under("brokerctl.1", "ENVIRONMENT")))
    assert {name: file for name, file in found.items() if name.lower() not in named} == {}


@pytest.mark.parametrize(
    ("markdown", "made"),
    [
        ("a-b `-x 'y'` c", "a-b \\fB\\-x \\(aqy\\(aq\\fR c"),
        ("**all `x` of it** is *so*", "\\fBall \\fBx\\fB of it\\fR is \\fIso\\fR"),
        ("See sd_notify(3). It is\n.not a request", "See \\fBsd_notify\\fR(3).\nIt is .not a request"),
        ("`.x`", "\\fB.x\\fR"),
        (".x", "\\&.x"),
        ("a\\b – §4", "a\\eb \\[u2013] section\\~4"),
        ("[here](#there) and [that](../examples/x.toml)", "here and that (examples/x.toml)"),
        ("[recipes.md](recipes.md#top)", "docs/recipes.md"),
    ],
)
def test_a_paragraph_becomes_what_troff_shows_as_it_was_written(markdown: str, made: str) -> None:
    assert troff.from_markdown(markdown, {}) == f".PP\n{made}"


def test_an_example_is_left_as_it_is() -> None:
    for markdown in ("```sh\n.x 'y'\n\n  z\n```\n", "    .x 'y'\n\n      z\n"):
        assert troff.from_markdown(markdown, {}) == ".PP\n.RS 4\n.EX\n\\&.x \\(aqy\\(aq\n\n  z\n.EE\n.RE"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "command",
    [["groff", "-man", "-Tutf8", "-ww"], ["groff", "-man", "-Tascii", "-ww"], ["mandoc", "-T", "lint"]],
    ids=str,
)
def test_what_reads_pages_finds_nothing_wrong(command: list[str], name: str, tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        did_not_run("MANUAL PAGES", f"{command[0]} is not installed")
    (tmp_path / name).write_text(PAGES[name])
    done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stderr + (done.stdout if command[0] == "mandoc" else "")
    # A page has no date: it is that of a version, and pages are made anew with each. Nor has this machine all others.
    known = ("missing date", "referenced manual not found", "STYLE")
    assert [line for line in said.splitlines() if not any(each in line for each in known)] == []


def test_a_wheel_by_way_of_the_sdist_has_all_that_pages_are_made_of(tmp_path: Path) -> None:
    source = built("sdist", ROOT, tmp_path)
    built("wheel", tmp_path / "sdist" / source.name.removesuffix(".tar.gz"), tmp_path)
    write = ["-P", "-m", "brokerd.ctl.manual", str(tmp_path / "man")]
    subprocess.run([sys.executable, *write], check=True, env={"PYTHONPATH": str(tmp_path / "wheel")}, cwd=tmp_path)
    assert {file.name: file.read_text() for file in (tmp_path / "man").iterdir()} == PAGES


def built(kind: str, source: Path, folder: Path) -> Path:
    """A distribution of a source tree in `folder`, also unpacked below it under its kind."""
    code = f"from flit_core.buildapi import build_{kind}; print(build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=source)
    made = folder / done.stdout.strip()
    shutil.unpack_archive(made, folder / kind, "gztar" if kind == "sdist" else "zip")
    return made
