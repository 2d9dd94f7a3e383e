# What the documentation says, held against what the code does: the state diagram, the protocol's methods and errors,
# every key of the configuration and of recipes, the store's tables, dependencies, links, and examples in the text.
from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from brokerd import config, ctl, methods
from brokerd.config.tables import load_recipe
from brokerd.core import chain, signing
from brokerd.core.duration import Duration
from brokerd.core.failure import Code
from brokerd.core.policy import Action
from brokerd.ctl import EXITS, arguments
from brokerd.dialects import answer, oauth2, recipe, recipe_file
from brokerd.edge import schema
from docs import diagram

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {"node_modules", ".venv", ".pytest_cache"} & set(path.relative_to(ROOT).parts) and not path.is_symlink()
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


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
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
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


def test_the_check_of_the_diagram_notices_a_drift(tmp_path: Path) -> None:
    copy = tmp_path / "diagram.py"
    copy.write_text(page("docs/diagram.py"))
    text = page("docs/architecture.md")
    for drifted, status in ((text, 0), (text.replace("renewing --> retrying: failed", ""), 1)):
        (tmp_path / "architecture.md").write_text(drifted)
        assert subprocess.run([sys.executable, copy, "--check"], capture_output=True, check=False).returncode == status


def test_every_table_and_column_of_the_store_is_described() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema.whole())
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    connection.close()
    rows = table(section(page("docs/architecture.md"), "## The store"))
    assert {unquoted(row["table"])[0]: unquoted(row["columns"]) for row in rows} == columns


def test_each_of_the_fifteen_laws_names_code_and_tests_that_are_there() -> None:
    rows = table(section(page("docs/architecture.md"), "## The laws"))
    assert [row["law"] for row in rows] == [str(number) for number in range(1, 16)]
    for row in rows:
        files = [ROOT / "docs" / link for link in LINK.findall(row["tests"])]
        assert files, row["law"]
        assert LINK.findall(row["where it is held"]), row["law"]
        tests = "".join(file.read_text() for file in files)
        assert [name for name in unquoted(row["tests"]) if f"def {name}(" not in tests] == []


# -- the protocol


def methods_in_code() -> dict[str, dict[str, bool]]:
    """Method → parameter → whether it is required."""
    nothing = cast(Any, None)
    found = methods.Methods(*[nothing] * 7)._methods
    return {method: {name: name in row.required for name in row.checks} for method, row in found.items()}


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


def test_every_error_code_of_the_protocol_is_described_and_no_other() -> None:
    rows = table(section(page("docs/protocol.md"), "## Errors"))
    assert [unquoted(row["code"])[0] for row in rows] == list(Code)
    exits = {unquoted(row["code"])[0]: int(row["`brokerctl` exits with"]) for row in rows}
    assert {code: EXITS[code] for code in exits} == exits


def test_the_limits_of_the_protocol_are_those_of_the_code() -> None:
    text = page("docs/protocol.md")
    assert f"A client's message has at most {methods.MAX_MESSAGE:,} bytes" in text
    assert f"A connection may have {methods.MAX_IN_FLIGHT} requests waiting" in text
    assert text.count(f"at most {methods.MANY}") == 2
    assert f"default {methods.WAIT:g}, at most {methods.WAIT_LONGEST:g}" in text


# -- the configuration

CONFIGURATION = {
    "## [daemon]": config.daemon.DaemonFile,
    "## [providers.NAME]": config.providers.ProviderFile,
    "## [grants.NAME]": config.grants.GrantFile,
    "#### assertion": oauth2.settings.AssertionFile,
    "#### subject": oauth2.settings.SubjectFile,
    "#### client_assertion": oauth2.settings.ClientAssertionFile,
    "#### Variants": oauth2.settings.VariantsFile,
    "## [[allow]]": config.rules.AllowFile,
    "### caller": config.rules.SelectorFile,
    "## Secrets": config.secrets.SourceFile,
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
    return default


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
    ("name", "heading", "struct"),
    [("docs/configuration.md", *each) for each in CONFIGURATION.items()]
    + [("docs/recipes.md", *each) for each in RECIPES.items()],
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
        if key == "socket_mode":
            assert config.DaemonSettings().socket_mode == int(str(there), 8)
            continue
        assert same(rows[key]["type"], there, code), f"{key}: the page says {there!r}, the code {code!r}"


def test_the_places_in_an_answer_are_described() -> None:
    tables = section(page("docs/recipes.md"), "## Answers").split("A *place* is")[1]
    assert [unquoted(row["key"])[0] for row in table(tables)] == list(recipe_file.Place.__struct_fields__)


def test_every_meaning_of_a_status_and_every_status_with_one_is_described() -> None:
    text = section(page("docs/recipes.md"), "## Errors")
    assert [unquoted(row["meaning"])[0] for row in table(text)] == list(recipe_file.MEANINGS)
    numbers = {int(number) for number in re.findall(r"\b4\d\d\b", text.split("Statuses from 400 to 499")[1])}
    later = {status for status in answer.LATER if status < 500}
    assert numbers == later | set(answer.MAYBE_REFUSED)


def test_every_identifying_credential_and_forbidden_header_is_named() -> None:
    text = page("docs/recipes.md")
    assert [name for name in recipe.IDENTIFYING if f"`{name}`" not in text] == []
    assert [name for name in recipe_file.OURS if f"`{name}`" not in text.lower()] == []


def test_every_action_is_described() -> None:
    tables = section(page("docs/configuration.md"), "## [[allow]]").split("\n\n")
    found = next(table(each) for each in tables if each.startswith("| action"))
    assert [unquoted(row["action"])[0] for row in found] == list(Action)


def test_every_dialect_that_comes_along_is_named() -> None:
    recipes = [path.stem for path in config.BUILT_IN_RECIPES.glob("*.toml")]
    text = section(page("docs/configuration.md"), "## [providers.NAME]")
    assert [name for name in ("oauth2", *recipes) if f"`{name}`" not in text] == []


def test_the_gallery_has_every_recipe_with_its_credentials_and_settings() -> None:
    rows = table(section(page("docs/recipes.md"), "## The gallery"))
    found = {LINK.findall(row["recipe"])[0]: (unquoted(row["credentials"]), unquoted(row["settings"])) for row in rows}
    recipes = {}
    for path in sorted(config.BUILT_IN_RECIPES.glob("*.toml")):
        read = load_recipe(path)
        recipes[f"../{path.relative_to(ROOT)}"] = (list(read.credentials), list(read.settings))
        source = re.search(r"^# Source: (https://[^\s,;)]+)", path.read_text(), re.MULTILINE)
        row = next(row for row in rows if f"/{path.name})" in row["recipe"])
        assert LINK.findall(row["source"]) == ([source[1]] if source else [])
    assert found == recipes
    assert [row["recipe"] for row in rows if not re.match(r"\[(own|real)\]\(", row["shown against"])] == []


def test_every_action_of_brokerctl_recipe_and_every_option_of_try_is_described() -> None:
    rows = next(table(each) for each in page("docs/recipes.md").split("\n\n") if each.startswith("| command"))
    assert [unquoted(row["command"])[0].split()[2] for row in rows] == list(arguments.RECIPE_ACTIONS)
    parser = arguments.read_arguments(["recipe", "try", "mine.toml", "--base-url", "https://x.example"]).parser
    options = [name for name in parser._option_string_actions if name.startswith("--") and name != "--help"]
    own = [name for name in options if name not in arguments.WHICH]
    assert [name for name in own if name not in rows[-1]["command"]] == []


def test_every_algorithm_of_an_assertion_is_named() -> None:
    text = section(page("docs/recipes.md"), "## Assertions")
    assert [name for name in signing.ALGORITHMS if f"`{name}`" not in text] == []
    assert f"at most {recipe_file.LONGEST_ASSERTION}" in text


def test_the_grants_in_the_text_are_right(tmp_path: Path) -> None:
    blocks = [text for language, text in CODE_BLOCK.findall(page("docs/recipes.md")) if language == "toml"]
    grants = [text for text in blocks if text.startswith("[providers.")]
    assert grants
    for number, text in enumerate(grants):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        file.chmod(0o600)
        assert config.load(file).grants


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
    found = config.load(file)
    assert (len(found.providers), len(found.grants), len(found.rules)) == (1, 1, 1)
    assert found.daemon.socket_mode == (0o666 if "socket_mode" in complete[0] else 0o660)


# -- dependencies


def required() -> Iterator[str]:
    for path in ("pyproject.toml", "client/pyproject.toml"):
        yield from tomllib.loads(page(path))["project"]["dependencies"]
    for line in page("requirements/dev.in").splitlines():
        if line and not line.startswith("#"):
            yield line
    yield from json.loads(page("tests/realservers/oidc-provider/package.json"))["dependencies"]


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
    assert len(tables) == 8, "seven attackers, and those who are not defended against"
    assert [row for rows in tables for row in rows if not re.match(r"\[`\w+`\]\(", row["shown by"])] == []


# -- links


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
