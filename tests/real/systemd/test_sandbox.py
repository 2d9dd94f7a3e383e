# What the units leave open, by systemd-analyze's own account, held against docs/systemd.md and the units' comments; and
# the drop-ins, which have to be right for the systemd that is here.
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.project.test_docs import page, section, table, unquoted
from tests.real.systemd.box import ROOT

UNITS = ROOT / "systemd"
DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))


def analysed(unit: Path) -> str:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def described(unit: str, heading: str, most: float) -> tuple[str, str]:
    """Assert that docs/systemd.md says under that heading what the unit leaves open, that this is no more than `most`,
    and that nothing is named there that it does not leave open. Returns the score and the section."""
    said = analysed(UNITS / unit)
    score = re.search(rf"exposure level for {unit.replace('@', '@[^:]*')}: ([\d.]+)", said)
    assert score, said
    assert float(score[1]) <= most
    text = section(page("docs/systemd.md"), heading)
    named = {unquoted(row["finding"].replace("\\|", "|"))[0] for row in rows(text)}
    found = {mark: set(re.findall(rf"^{mark} (\S+)", said, re.MULTILINE)) for mark in "✗✓"}
    assert (found["✗"] - named, named & found["✓"]) == (set(), set())
    return score[1], text


def test_the_sandbox_is_as_tight_as_the_job_allows_and_the_page_says_what_is_left() -> None:
    score, text = described("brokerd.service", "## The sandbox", most=1.3)
    documented = re.search(r"Overall exposure level for brokerd.service: ([\d.]+)", text)
    assert documented
    assert documented[1] == score or "systemd 252 " not in version()


def rows(text: str) -> list[dict[str, str]]:
    """Of the table, which has a | in a cell."""
    return [{name: cell.replace("\0", "\\|") for name, cell in row.items()} for row in table(text.replace("\\|", "\0"))]


def version() -> str:
    return subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=False).stdout


def test_the_page_says_what_the_sandbox_of_a_proxy_leaves_open() -> None:
    score, text = described("brokerd-proxy@.service", "### brokerd-proxy@NAME", most=1.3)
    assert f"brokerd-proxy@.service`: {score}" in text or "systemd 252 " not in version()


@pytest.mark.parametrize("unit", ["brokerd.service", "user/brokerd.service", "brokerd-proxy@.service"])
def test_what_a_unit_says_is_not_set_is_not(unit: str) -> None:
    lines, _, comments = (UNITS / unit).read_text().partition("# Not set, and why")
    named = re.findall(r"^#   (\w+=) ", comments, re.MULTILINE)
    assert named
    assert [name for name in named if re.search(rf"^{name}", lines, re.MULTILINE)] == []


def test_a_users_unit_denies_all_that_a_users_systemd_can() -> None:
    """Whatever the system's unit sets of these, the user's sets likewise."""
    denied = ("NoNewPrivileges", "Restrict", "Lock", "MemoryDeny", "Keyring", "SystemCall", "UMask", "LimitCORE")
    lines = [
        [line for line in (UNITS / unit).read_text().splitlines() if line.startswith(denied)]
        for unit in ("brokerd.service", "user/brokerd.service")
    ]
    assert lines[0] == lines[1] != []


def test_the_page_names_every_drop_in() -> None:
    text = section(page("docs/systemd.md"), "## Drop-ins")
    assert re.findall(r"\(../systemd/drop-ins/([\w.]+)\)", text) == [path.name for path in DROP_INS]


@pytest.mark.parametrize("path", DROP_INS, ids=lambda path: path.stem)
def test_a_drop_in_is_right_for_the_unit(path: Path, tmp_path: Path) -> None:
    (tmp_path / "brokerd.service.d").mkdir()
    unit = re.sub(r"/opt/brokerd/bin/\w+", "/bin/true", (UNITS / "brokerd.service").read_text())
    (tmp_path / "brokerd.service").write_text(unit)
    (tmp_path / "brokerd.service.d" / path.name).write_text(path.read_text())
    (tmp_path / "brokerd.socket").write_text((UNITS / "brokerd.socket").read_text())
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "brokerd.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
    assert done.returncode == 0, done.stderr
