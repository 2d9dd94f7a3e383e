# Versions: each number stands in several files (two pyproject.toml, the lock, the Debian package, the text), and all of
# them agree. What the package installs is, to the hash, what is tested.
from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import brokerd_client
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import brokerd

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("lock.txt", "runtime.txt")
CLIENT = "brokerd-client"
VERSION = Version(brokerd.__version__)
PAGES = [path for folder in (ROOT, ROOT / "docs", ROOT / "client", ROOT / "examples") for path in folder.glob("*.md")]
HISTORY = {"CHANGELOG.md", "upgrading.md"}  # they speak of other versions


def project(folder: str) -> dict[str, Any]:
    with (ROOT / folder / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def needs(folder: str) -> dict[str, Requirement]:
    """What a distribution depends on, with its extras, by name."""
    about = project(folder)["project"]
    extras = [each for extra in about.get("optional-dependencies", {}).values() for each in extra]
    return {each.name: each for each in map(Requirement, [*about["dependencies"], *extras])}


def applications_own() -> set[str]:
    """Libraries that the client has auth classes for: an application has them already, and the package needs none."""
    modules = {path.stem for path in (ROOT / "client/brokerd_client/auth").glob("[!_]*.py")} | {"keyring"}
    extras = project("client")["project"]["optional-dependencies"]
    return {Requirement(each).name for name in extras.keys() & modules for each in extras[name]}


def test_the_packages_part_of_the_lock_is_in_the_lock_as_it_is() -> None:
    runtime, lock = (pinned((REQUIREMENTS / name).read_text()) for name in ("runtime.txt", "lock.txt"))
    assert runtime
    assert runtime - lock == set()


def test_the_daemon_and_its_client_library_have_one_version_and_the_daemon_asks_for_that() -> None:
    """The two are released together: the daemon uses the library's wire format."""
    assert brokerd_client.__version__ == brokerd.__version__
    pin = needs(".")[CLIENT].specifier
    assert str(pin) == f"=={VERSION.major}.{VERSION.minor}.*"
    assert pin.contains(VERSION, prereleases=True)


@pytest.mark.parametrize("folder", [".", "client"])
@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_is_within_what_each_distribution_asks_for(folder: str, lock: str) -> None:
    found = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (REQUIREMENTS / lock).read_text(), re.MULTILINE))
    left_out = {CLIENT} | (applications_own() if lock == "runtime.txt" else set())
    assert not left_out & found.keys()
    wrong = {
        name: str(each.specifier)
        for name, each in needs(folder).items()
        if name not in left_out and (name not in found or not each.specifier.contains(found[name]))
    }
    assert wrong == {}, f"run: make lock; requirements/{lock} has {[found.get(name) for name in wrong]}"


def test_the_two_distributions_agree_in_all_that_both_ask_for() -> None:
    daemon, client = needs("."), needs("client")
    assert [name for name in daemon.keys() & client.keys() if daemon[name].specifier != client[name].specifier] == []
    for key in ("requires-python", "license"):
        assert project(".")["project"][key] == project("client")["project"][key]
    assert project(".")["build-system"] == project("client")["build-system"]


def test_every_file_asks_for_the_same_python() -> None:
    least = project(".")["project"]["requires-python"].removeprefix(">=")
    assert f"python3 (>= {least})" in (ROOT / "debian/control").read_text()
    assert f"sys.version_info < ({least.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    told = {path.name: set(re.findall(r"Python (\d+\.\d+)", path.read_text())) for path in PAGES}
    assert {name: said for name, said in told.items() if said - {least}} == {}


def test_no_page_names_a_version_that_the_next_release_would_make_wrong() -> None:
    form = re.compile(r"brokerd(?:[-_ ]|-client==)\d+\.\d+|\bversion \d+\.\d+", re.IGNORECASE)
    told = {path.name: form.findall(path.read_text()) for path in PAGES if path.name not in HISTORY}
    assert {name: said for name, said in told.items() if said} == {}


def test_a_version_is_either_in_the_changelog_or_still_in_development() -> None:
    """And what keeps the store of a released version is packed, so that later ones are tested with it."""
    released = {
        Version(each) for each in re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    }
    packed = {Version(each.name[8:-7]) for each in (ROOT / "tests/scenario/upgrade/released").glob("brokerd-*.tar.xz")}
    assert VERSION.is_devrelease != (VERSION in released)
    assert released - packed - {VERSION} == set(), "see tests/scenario/upgrade/pack_release.py"
    assert max(released) <= VERSION


def pinned(text: str) -> set[str]:
    """Each version with its hashes."""
    return set(re.split(r"\n(?=\S)", text.strip()))
