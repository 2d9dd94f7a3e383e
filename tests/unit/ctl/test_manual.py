# The manual pages against the code: every command, option, exit code, signal, variable and key stands in its page. Each
# page is what `make man` makes of its sources, the tools that read pages find nothing wrong, and a wheel has the pages.
from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from argparse import PARSER, SUPPRESS
from collections import Counter
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from brokerd_client import helpers
from brokerd_client.credentials import bazel, docker, git

from brokerd import ctl
from brokerd.ctl.arguments import EXIT_CODES, every_parser, make_parser
from brokerd.ctl.command_table import COMMANDS, DEFAULT_ENV, WHICH
from brokerd.ctl.commands import tokens
from brokerd.daemon import main
from brokerd.edge.systemd import kept_sockets
from brokerd.setup import install_files, installation
from docs.man import build
from tests.did_not_run import did_not_run
from tests.project.test_docs import CONFIGURATION
from tests.unit.ctl.conftest import Run

ROOT = Path(__file__).parents[3]
PAGES = {file.name: file.read_text(encoding="utf-8") for file in install_files.MANUAL_PAGES.iterdir()}
MINUS = r"\-"  # as man(7) writes it
VARIABLE = re.compile(r"[A-Z]+(_[A-Z]+)+|DISPLAY|BROWSER")


ESCAPED = {"-": "-", " ": " ", "&": "", "(aq": "'", "(at": "@", "(bu": "•", "(dq": '"', "(rs": "\\", "(ti": "~"}


def text_of(made: str) -> str:
    """What a reader sees of man(7), line by line. An escape that this does not know is a KeyError."""
    text = re.sub(r"\\f\[[BIR]+\]|^\.\\\".*", "", made, flags=re.MULTILINE)
    return re.sub(r"\\(\(\w\w|.)", lambda found: ESCAPED[found[1]], text)


def under(name: str, heading: str) -> str:
    """What stands in a page under a heading."""
    found = re.search(
        rf"^\.S[HS] {re.escape(heading.replace('-', MINUS))}\n(.*?)(?=^\.S[HS] |\Z)",
        PAGES[name],
        re.MULTILINE | re.DOTALL,
    )
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
    of_page = re.findall(r"^\.SS (.+)$", PAGES["brokerctl.1"], re.MULTILINE)
    names = [name.replace(MINUS, "-") for name in of_page if " " not in name]
    assert of_help == list(COMMANDS) == names


def test_what_there_is_to_know_besides_is_about_commands_that_there_are() -> None:
    found = build.details()
    assert set(found) <= set(every_parser(make_parser()))
    for name, text in found.items():
        assert written(text) <= words(text_of(under("brokerctl.1", name))), name


def test_every_exit_code_has_its_words() -> None:
    named = {ctl.OUR_BUG, ctl.USAGE, ctl.REFUSED, ctl.TRY_AGAIN, ctl.OVER, ctl.NO_DAEMON}
    assert set(EXIT_CODES) == {0} | named
    assert tags(under("brokerctl.1", "EXIT STATUS")) == [str(code) for code in EXIT_CODES]
    for code in (ctl.INTERRUPTED, ctl.BROKEN_PIPE, tokens.CANNOT_RUN, tokens.NOT_FOUND):
        assert str(code) in words(under("brokerctl.1", "EXIT STATUS"))


# -- brokerd(8)


def test_every_option_exit_status_and_signal_of_brokerd_stands_in_its_page() -> None:
    options = " ".join(tags(under("brokerd.8", "OPTIONS")))
    for action in main.parser()._actions:
        assert action.help
        assert [each for each in action.option_strings if each not in options] in ([], ["-h", "--help"])
    codes = {0, 1, installation.EXIT_CONFIGURATION, installation.EXIT_UNAVAILABLE}
    assert {int(tag) for tag in tags(under("brokerd.8", "EXIT STATUS"))} == codes
    signals = set(re.findall(r"\bsignal\.(SIG\w+)", Path(main.__file__).read_text()))
    assert set(re.findall(r"SIG\w+", " ".join(tags(under("brokerd.8", "SIGNALS"))))) == signals


def test_every_message_to_the_service_manager_stands_in_the_page() -> None:
    sent = set()
    for file in {*(ROOT / "brokerd").rglob("*.py")} - {Path(kept_sockets.__file__)}:  # of brokerd-proxy
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
    found = {DEFAULT_ENV: "command_table.py"}
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


def test_every_program_has_its_page() -> None:
    daemons = {"brokerd", "brokerd-proxy"}
    pages = {f"{name}.{8 if name in daemons else 1}" for name in install_files.LINKED}
    assert pages <= set(PAGES)


@pytest.mark.parametrize("module", [bazel, docker, git], ids=lambda module: module.PROGRAM)
def test_every_operation_of_a_credential_helper_stands_in_its_page(module: ModuleType) -> None:
    operations = re.findall(r'"(\w+)": ', inspect.getsource(module.main))
    assert operations
    synopsis = " ".join(text_of(under(f"{module.PROGRAM}.1", "SYNOPSIS")).split())
    assert f"{module.PROGRAM} {'|'.join(operations)}" in synopsis


def test_every_key_of_helpers_toml_stands_in_its_page() -> None:
    assert {tag.partition(" ")[0] for tag in tags(PAGES["helpers.toml.5"])} >= set(helpers.KEYS)


def test_there_is_a_page_for_each_source() -> None:
    assert set(PAGES) == set(build.NAMES)


@pytest.mark.parametrize("name", build.NAMES)
def test_a_page_is_what_its_sources_say(name: str) -> None:
    assert build.is_current(name), f"brokerd/man/{name} was edited, or its sources have changed since; run: make man"


def test_a_change_of_a_source_or_of_the_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brokerd.8").write_text(PAGES["brokerd.8"] + "more\n")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(build, "PAGES", tmp_path)
        assert not build.is_current("brokerd.8")
    monkeypatch.setitem(build.PIECES, "options of brokerd", lambda: "another option")
    assert not build.is_current("brokerd.8")
    assert build.is_current("brokerctl.1")


@pytest.mark.parametrize("name", build.NAMES)
def test_pandoc_makes_the_page_again(name: str) -> None:
    if importlib.util.find_spec("pypandoc") is None:
        did_not_run("MANUAL PAGES MADE AGAIN", "pandoc is not installed; make man installs it")
    assert build.page(name) == PAGES[name]


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
    # A page has no date: it belongs to a version. This machine need not have the other pages that it names.
    known = ("missing date", "referenced manual not found", "STYLE")
    assert [line for line in said.splitlines() if not any(each in line for each in known)] == []


def test_a_wheel_by_way_of_the_sdist_has_the_pages(tmp_path: Path) -> None:
    source = built("sdist", ROOT, tmp_path)
    built("wheel", tmp_path / "sdist" / source.name.removesuffix(".tar.gz"), tmp_path)
    assert {file.name: file.read_text() for file in (tmp_path / "wheel" / "brokerd" / "man").iterdir()} == PAGES


def built(kind: str, source: Path, folder: Path) -> Path:
    """A distribution of a source tree in `folder`, also unpacked below it under its kind."""
    code = f"from flit_core.buildapi import build_{kind}; print(build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=source)
    made = folder / done.stdout.strip()
    shutil.unpack_archive(made, folder / kind, "gztar" if kind == "sdist" else "zip")
    return made
