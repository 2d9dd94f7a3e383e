# What the documentation says, held against what the code does: the state diagram, the protocol's methods and errors,
# every key of the configuration and of recipes, the store's tables, dependencies, links, and examples in the text.
from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import msgspec
import pytest

from brokerd import ctl
from brokerd.config import daemon, grants, on_event, providers, rules, secrets, sockets, store, token_files
from brokerd.config.load import load
from brokerd.config.proxies import ProxyTable
from brokerd.config.recipes import BUILT_IN_RECIPES, load_recipe
from brokerd.core.access.policy import Action
from brokerd.core.audit import chain
from brokerd.core.errors import Code
from brokerd.core.exchange.algorithms import ALGORITHMS
from brokerd.core.files import contents, template
from brokerd.core.timing.duration import Duration
from brokerd.ctl import EXITS, arguments
from brokerd.ctl.command_table import COMMANDS, WHICH
from brokerd.dialects import answer_outcomes
from brokerd.dialects.oauth2 import client_auth, grant_types
from brokerd.dialects.recipe import dialect
from brokerd.dialects.recipe import file as recipe_file
from brokerd.edge.store import schema
from brokerd.server.methods import method, parameters, status
from brokerd.server.methods.table import methods
from docs import diagram

ROOT = Path(__file__).parents[2]
OTHERS = {"node_modules", ".venv", ".pytest_cache", "build"}  # large, and not looked into


def pages() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = {*folders} - OTHERS
        yield from (path for name in names if (path := Path(folder, name)).suffix == ".md" and not path.is_symlink())


PAGES = sorted(pages())
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def sources() -> list[Path]:
    """Every module of ours: the package, the client library, tests, bench, documentation."""
    return sorted(
        path
        for folder in ("brokerd", "client", "tests", "bench", "docs", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts and path != Path(__file__)
    )


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above. `heading` with its hashes."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(
        rf"^{re.escape(heading)}(?=$| )[^\n]*\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no {heading}"
    return found[1]


def table(text: str) -> list[dict[str, str]]:
    """The first table of a text, its rows by column name."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def unquoted(text: str) -> list[str]:
    """The names that stand in backticks."""
    return re.findall(r"`([^`]+)`", text)


# -- the architecture


def test_the_state_diagram_is_as_the_table_says() -> None:
    text = page("docs/architecture.md")
    assert text == diagram.with_diagram(text), "run: python docs/diagram.py"


def test_who_opens_the_folder_finds_each_part_of_it_among_the_layers() -> None:
    rows = section(page("docs/architecture.md"), "## Layers")
    parts = {each.parent.name for each in (ROOT / "brokerd").glob("*/__init__.py")}
    parts |= {each.name for each in (ROOT / "brokerd").glob("[!_]*.py")}
    assert {each for each in parts if f"(../brokerd/{each}" not in rows} == set()


def test_each_duty_names_files_that_are_there_and_nothing_twice() -> None:
    rows = table(section(page("docs/architecture.md"), "## Which file does what"))
    assert len(rows) >= 25
    duties = [row["duty"] for row in rows]
    assert len(set(duties)) == len(duties)
    for row in rows:
        files = [ROOT / "docs" / link for link in LINK.findall(row["file"])]
        assert files, row["duty"]
        assert [file for file in files if not file.is_file()] == []


def test_the_check_of_the_diagram_notices_a_drift(tmp_path: Path) -> None:
    copy = tmp_path / "diagram.py"
    copy.write_text(page("docs/diagram.py"))
    text = page("docs/architecture.md")
    for drifted, exit_code in ((text, 0), (text.replace("renewing --> retrying: failed", ""), 1)):
        (tmp_path / "architecture.md").write_text(drifted)
        assert (
            subprocess.run([sys.executable, copy, "--check"], capture_output=True, check=False).returncode == exit_code
        )


def test_every_table_and_column_of_the_store_is_described() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema.whole())
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    connection.close()
    rows = table(section(page("docs/store.md"), "## The store"))
    assert {unquoted(row["table"])[0]: unquoted(row["columns"]) for row in rows} == columns


# -- the laws


def test_each_of_the_fifteen_laws_says_why_and_names_code_and_tests_that_are_there() -> None:
    text = page("docs/laws.md")
    assert re.findall(r"^## (\d+)\.", text, re.MULTILINE) == [str(number) for number in range(1, 16)]
    for heading in re.findall(r"^(## \d+\. .*)$", text, re.MULTILINE):
        rule, why, kept, tests = re.split(
            r"^(?:\*Why\.\*|\*Kept in\*|\*Tests:\*)", section(text, heading), flags=re.MULTILINE
        )
        assert rule.strip(), f"{heading}: expected the rule"
        assert why.strip(), f"{heading}: expected why it exists"
        assert [link for link in LINK.findall(kept) if "brokerd" in link], f"{heading}: expected files of brokerd"
        lines = [line for line in tests.splitlines() if line.strip()]
        assert lines, f"{heading}: expected tests"
        for line in lines:
            (file,) = LINK.findall(line)
            code = (ROOT / "docs" / file).read_text(encoding="utf-8")
            assert unquoted(line), f"{heading}: expected names of tests in {file}"
            assert [name for name in unquoted(line) if f"def {name}(" not in code] == []


def test_every_law_that_the_code_cites_is_there() -> None:
    found = {
        int(number)
        for path in sources()
        for cited in re.findall(r"\blaws? ((?:\d+(?:, | and )?)+)", path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", cited)
    }
    assert found <= set(range(1, 16)), "docs/laws.md has 15 laws"
    assert found


def test_nothing_cites_a_page_that_is_not_in_the_repository() -> None:
    """Names of pages, as `laws.md`, in code, comments, tests and pages. A page of another site has an address."""
    pages = {path.name for path in PAGES}
    missing = []
    for path in (*sources(), *PAGES):
        text = re.sub(r"https?://\S+", "", path.read_text(encoding="utf-8"))
        missing += [f"{path}: {name}" for name in re.findall(r"\b[\w-][\w.-]*\.md\b", text) if name not in pages]
    assert missing == []


# -- the protocol


def methods_in_code() -> dict[str, dict[str, bool]]:
    """Method → parameter → whether it is required."""
    return {
        each: {name: name in row.required for name in row.parameters if name not in parameters.COMMON}
        for each, row in methods(*[Mock() for _ in signature(methods).parameters]).items()
    }


def methods_on_page() -> dict[str, dict[str, bool]]:
    found = {}
    for heading in re.findall(r"^### `(\w+)`", page("docs/protocol.md"), re.MULTILINE):
        text = section(page("docs/protocol.md"), f"### `{heading}`")
        parameters: dict[str, bool] = {}
        if text.startswith("Takes nothing"):
            pass
        elif text.startswith("| parameter"):
            for row in table(text):
                parameters |= dict.fromkeys(unquoted(row["parameter"]), row["means"].startswith("required"))
        else:
            given = re.match(r"`\{(.*?)\}`", text)
            assert given, f"{heading}: expected its parameters first"
            for part in re.sub(r"\[[^\]]*\]", "", given[1]).split(","):
                name = part.split(":")[0].strip()
                parameters[name.rstrip("?")] = not name.endswith("?")
        found[heading] = parameters
    return found


def test_no_method_has_the_name_of_a_line_that_only_the_audit_log_itself_writes() -> None:
    """A denied request is an event with the method's name, and would be taken for a broken seal."""
    assert methods_in_code().keys().isdisjoint({chain.SEAL, chain.OPENING})


def test_every_method_and_parameter_of_the_protocol_is_described_and_no_other() -> None:
    assert methods_on_page() == methods_in_code()
    common = section(page("docs/protocol.md"), "## Request ids")
    assert all(f"`{name}`" in common for name in parameters.COMMON)


def test_every_error_code_of_the_protocol_is_described_and_no_other() -> None:
    rows = table(section(page("docs/protocol.md"), "## Errors"))
    assert [unquoted(row["code"])[0] for row in rows] == list(Code)
    exits = {unquoted(row["code"])[0]: int(row["`brokerctl` exits with"]) for row in rows}
    assert {code: EXITS[code] for code in exits} == exits


def test_the_limits_of_the_protocol_are_those_of_the_code() -> None:
    text = page("docs/protocol.md")
    assert f"A client's message has at most {status.MAX_MESSAGE:,} bytes" in text
    assert f"A connection may have {method.MAX_IN_FLIGHT} requests waiting" in text
    assert text.count(f"at most {parameters.MANY}") == 2
    assert f"default {parameters.WAIT:g}, at most {parameters.WAIT_LONGEST:g}" in text


# -- the configuration

CONFIGURATION = {
    "## [daemon]": daemon.DaemonFile,
    "## [http]": sockets.HttpFile,
    "## [credentials]": sockets.SocketFile,
    "## [store]": store.StoreFile,
    "## [providers.NAME]": providers.ProviderFile,
    "## [grants.NAME]": grants.GrantFile,
    "#### assertion": grant_types.Assertion,
    "#### subject": grant_types.Subject,
    "#### client_assertion": client_auth.ClientAssertion,
    "#### Variants": grant_types.Downscoping,
    "## [[allow]]": rules.AllowFile,
    "### caller": rules.SelectorFile,
    "## [[on_event]]": on_event.OnEventFile,
    "## Secrets": secrets.CredentialFile,
}
RECIPES = {
    "## The file": recipe_file.RecipeFile,
    "## Operations": recipe_file.OperationFile,
    "## Assertions": recipe_file.JwtFile,
    "## Answers": recipe_file.AnswerFile,
    "## Revocation": recipe_file.RevokeFile,
}
NONE = "–"


def written(field: msgspec.structs.FieldInfo) -> object:
    """A default as the documentation writes it: a TOML value, or what stands for required and for nothing."""
    default = field.default
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default is None or (isinstance(default, msgspec.Struct) and not any(msgspec.structs.astuple(default))):
        return NONE
    return list(default) if isinstance(default, tuple) else default


def said(cell: str) -> object:
    value = unquoted(cell)
    if not value:
        return cell
    return cast(object, tomllib.loads(f"value = {value[0]}")["value"])


def same(kind: str, there: object, code: object) -> bool:
    if kind == "duration" and not isinstance(there, str | None):
        there = Duration.read(there)
    if isinstance(code, Duration):
        return Duration.read(there) == code
    return there == code or (isinstance(code, msgspec.Struct) and there == NONE)


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## Keys", token_files.FileTable.__struct_fields__),
        ("## on_change", token_files.OnChangeTable.__struct_fields__),
        ("## Formats", tuple(contents.FORMATS)),
        ("## Templates", tuple(f"{{{name}}}" for name in template.NAMES)),
    ],
)
def test_every_word_of_a_file_with_tokens_is_described_and_no_other(heading: str, known: tuple[str, ...]) -> None:
    rows = table(section(page("docs/files.md"), heading))
    named = [name.partition(" ")[0] for row in rows for name in unquoted(next(iter(row.values())))]
    assert set(known) - set(named) == set()
    assert [name for name in named if name not in known and not name.startswith(("{fields.", "{{", "}}"))] == []


def test_every_filter_of_a_template_is_described() -> None:
    text = section(page("docs/files.md"), "## Templates")
    assert re.findall(r"^\| `{access_token:(\w+)}`", text, re.MULTILINE) == list(template.FILTERS)


@pytest.mark.parametrize(
    ("name", "heading", "struct"),
    [("docs/configuration.md", *each) for each in CONFIGURATION.items()]
    + [("docs/recipes.md", *each) for each in RECIPES.items()]
    + [("docs/proxy.md", "## Keys", ProxyTable)],
)
def test_every_key_is_described_with_its_default_and_no_other(
    name: str, heading: str, struct: type[msgspec.Struct]
) -> None:
    rows = {unquoted(row["key"])[0]: row for row in table(section(page(name), heading))}
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert list(rows) == list(fields), "the keys, in the order of the code"
    for key, field in fields.items():
        if heading == "## [daemon]" and written(field) is None:
            continue
        there, code = said(rows[key]["default"]), written(field)
        assert same(rows[key]["type"], there, code), f"{key}: the page says {there!r}, the code {code!r}"


def test_the_places_in_an_answer_are_described() -> None:
    tables = section(page("docs/recipes.md"), "## Answers").split("A *place* is")[1]
    assert [unquoted(row["key"])[0] for row in table(tables)] == list(recipe_file.TokenPlace.__struct_fields__)


def test_every_meaning_of_a_status_and_every_status_with_one_is_described() -> None:
    text = section(page("docs/recipes.md"), "## Errors")
    assert [unquoted(row["meaning"])[0] for row in table(text)] == list(recipe_file.MEANINGS)
    numbers = {int(number) for number in re.findall(r"\b4\d\d\b", text.split("Statuses from 400 to 499")[1])}
    later = {status for status in answer_outcomes.LATER if status < 500}
    assert numbers == later | set(answer_outcomes.MAYBE_REFUSED)


def test_every_identifying_credential_and_forbidden_header_is_named() -> None:
    text = page("docs/recipes.md")
    assert [name for name in dialect.IDENTIFYING if f"`{name}`" not in text] == []
    assert [name for name in recipe_file.OURS if f"`{name}`" not in text.lower()] == []


def test_every_action_is_described() -> None:
    tables = section(page("docs/configuration.md"), "## [[allow]]").split("\n\n")
    found = next(table(each) for each in tables if each.startswith("| action"))
    assert [unquoted(row["action"])[0] for row in found] == list(Action)


def test_every_dialect_that_comes_along_is_named() -> None:
    recipes = [path.stem for path in BUILT_IN_RECIPES.glob("*.toml")]
    text = section(page("docs/configuration.md"), "## [providers.NAME]")
    assert [name for name in ("oauth2", *recipes) if f"`{name}`" not in text] == []


def test_the_gallery_has_every_recipe_with_its_credentials_and_settings() -> None:
    rows = table(section(page("docs/recipes.md"), "## The gallery"))
    found = {LINK.findall(row["recipe"])[0]: (unquoted(row["credentials"]), unquoted(row["settings"])) for row in rows}
    recipes = {}
    for path in sorted(BUILT_IN_RECIPES.glob("*.toml")):
        read = load_recipe(path)
        recipes[f"../{path.relative_to(ROOT)}"] = (list(read.credentials), list(read.settings))
        source = re.search(r"^# Source: (https://[^\s,;)]+)", path.read_text(), re.MULTILINE)
        row = next(row for row in rows if f"/{path.name})" in row["recipe"])
        assert LINK.findall(row["source"]) == ([source[1]] if source else [])
    assert found == recipes
    assert [row["recipe"] for row in rows if not re.match(r"\[(own|real)\]\(", row["shown against"])] == []


def test_every_action_of_brokerctl_recipe_and_every_option_of_try_is_described() -> None:
    rows = next(table(each) for each in page("docs/recipes.md").split("\n\n") if each.startswith("| command"))
    assert [unquoted(row["command"])[0].split()[2] for row in rows] == list(COMMANDS["recipe"].actions)
    parser = arguments.read_arguments(["recipe", "try", "mine.toml", "--base-url", "https://x.example"]).parser
    options = [name for name in parser._option_string_actions if name.startswith("--") and name != "--help"]
    own = [name for name in options if name not in WHICH]
    assert [name for name in own if name not in rows[-1]["command"]] == []


def test_every_algorithm_of_an_assertion_is_named() -> None:
    text = section(page("docs/recipes.md"), "## Assertions")
    assert [name for name in ALGORITHMS if f"`{name}`" not in text] == []
    assert f"at most {recipe_file.LONGEST_ASSERTION}" in text


def test_the_grants_in_the_text_are_right(tmp_path: Path) -> None:
    blocks = [text for language, text in CODE_BLOCK.findall(page("docs/recipes.md")) if language == "toml"]
    grants = [text for text in blocks if text.startswith("[providers.")]
    assert grants
    for number, text in enumerate(grants):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        file.chmod(0o600)
        assert load(file).grants


def test_the_check_of_the_first_recipe_in_the_text_says_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = CODE_BLOCK.findall(page("docs/recipes.md"))
    first = next(text for language, text in blocks if language == "toml" and text.startswith("# Our intranet.\n"))
    shown = next(text for language, text in blocks if language == "console")
    (tmp_path / "intranet.toml").write_text(first)
    monkeypatch.setattr("sys.argv", ["brokerctl", "recipe", "check", str(tmp_path / "intranet.toml")])
    assert ctl.main() == 0
    assert shown == f"$ brokerctl recipe check intranet.toml\n{capsys.readouterr().out}"


def test_the_worked_recipe_is_the_one_that_is_tested() -> None:
    blocks = [text for language, text in CODE_BLOCK.findall(page("docs/recipes.md")) if language == "toml"]
    assert page("examples/recipes/intranet.toml") in blocks


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_a_complete_configuration_in_the_text_is_right(name: str, tmp_path: Path) -> None:
    blocks = [text for language, text in CODE_BLOCK.findall(page(name)) if language == "toml"]
    complete = [text for text in blocks if text.startswith("# /etc/brokerd/brokerd.toml\n")]
    assert len(complete) == 1
    file = tmp_path / "brokerd.toml"
    file.write_text(complete[0])
    found = load(file)
    assert (len(found.providers), len(found.grants), len(found.rules)) == (1, 1, 1)
    assert found.daemon.socket_mode == (0o666 if "socket_mode" in complete[0] else 0o660)


# -- dependencies


def required() -> Iterator[str]:
    for path in ("pyproject.toml", "client/pyproject.toml"):
        yield from tomllib.loads(page(path))["project"]["dependencies"]
    for line in page("requirements/dev.in").splitlines():
        if line and not line.startswith("#"):
            yield line
    yield from json.loads(page("tests/real/servers/oidc-provider/package.json"))["dependencies"]


def test_every_dependency_has_its_line_and_no_other() -> None:
    described = set()
    for heading in ("## Of an application", "## Of the daemon and brokerctl", "## Of development"):
        text = page("docs/dependencies.md")
        full = next(line for line in text.splitlines() if line.startswith(heading))
        for row in table(section(text, full)):
            assert all(row.values()), row
            described |= {name.split(" ")[0].lower() for name in row["package"].split(", ")}
    assert described == {re.split(r"[ <>=!\[]", each)[0].lower() for each in required()}


# -- what was shown against which server


def test_every_mechanism_names_tests_that_are_there_and_run() -> None:
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page("docs/providers.md"))
    missing = [f"{file}::{name}" for file, name in found if f"def {name}(" not in page(file)]
    assert missing == []
    rows = [line for line in page("docs/providers.md").splitlines() if line.startswith("| ")]
    named = [row for row in rows if "`tests/" in row]
    assert len(rows) - len(named) == page("docs/providers.md").count("\n|---"), "each row but the heads names its test"


# -- who is stopped by what


def test_every_row_of_the_threat_model_names_tests_that_are_there() -> None:
    text = page("docs/threat-model.md")
    named = re.findall(r"\[`(\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", text)
    assert [f"{file}::{name}" for name, file in named if f"def {name}(" not in page(file)] == []
    tables = [table(each) for each in text.split("\n\n") if "| shown by |" in each]
    assert len(tables) >= 9, "seven attackers, an entrance, and those who are not defended against"
    assert [row for rows in tables for row in rows if not re.match(r"\[`\w+`\]\(", row["shown by"])] == []


def test_every_program_that_can_be_used_has_a_section_and_a_test() -> None:
    text = page("docs/use-with.md")
    rows = table(next(each for each in text.split("\n\n") if "| what you type |" in each))
    assert len(rows) >= 20
    sections = anchors(text)
    for row in rows:
        found = re.match(r"\[[^]]+\]\(#([\w-]+)\)", row["client"])
        assert found is not None, row
        assert found[1] in sections, row
        assert re.match(r"\[test_\w+\.py\]\(\.\./tests/", row["test"]), row


# -- links


def test_the_package_has_every_picture_that_the_docs_show() -> None:
    packed = (ROOT / "debian" / "brokerd.docs").read_text().split()
    shown = {link for path in (ROOT / "docs").glob("*.md") for link in LINK.findall(path.read_text()) if ".png" in link}
    assert shown
    folders = [f"docs/{link.partition('/')[0]}" for link in sorted(shown)]
    assert [folder for folder in folders if folder not in packed] == []


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_no_relative_link_is_dead(name: str) -> None:
    dead = []
    for link in LINK.findall(CODE_BLOCK.sub("", page(name))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_the_text_names_by_its_path_is_there(name: str) -> None:
    """Paths of ours in backticks: they begin with one of our folders."""
    ours = ("brokerd", "client", "docs", "examples", "requirements", "systemd", "tests", ".ci")
    paths = [each for each in unquoted(CODE_BLOCK.sub("", page(name))) if each.split("/")[0] in ours and "/" in each]
    plain = [each for each in paths if re.fullmatch(r"[\w./-]+", each) and "NAME" not in each]
    assert [each for each in plain if not (ROOT / each).exists()] == []
