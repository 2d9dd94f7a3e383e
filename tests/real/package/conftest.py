"""What `make package-test` made before: the package, and a clean Debian 12, which is booted once for a module."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.systemd.box import ROOT, Box, booted, missing

DEBIAN = ROOT / "build" / "debian-12"
INSIDE = "/mnt"  # where the box finds the packages


@pytest.fixture(scope="session")
def package() -> Path:
    made = sorted((ROOT / "dist").glob("brokerd_*.deb"))
    assert len(made) == 1, (
        f"expected one package in dist/, found {[each.name for each in made]}; run: make package-test"
    )
    return made[0]


@pytest.fixture(scope="module")
def box(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    assert (reason := missing()) is None, reason
    assert DEBIAN.exists(), f"{DEBIAN} is missing; run: make package-test"
    packages = tmp_path_factory.mktemp("packages")
    shutil.copy(package, packages / "brokerd.deb")
    make_older(package, packages / "older.deb", tmp_path_factory.mktemp("older") / "tree")
    with booted(tmp_path_factory.mktemp("box"), {}, {packages: INSIDE}, DEBIAN) as made:
        yield made


def make_older(package: Path, made: Path, tree: Path) -> None:
    """The package as an earlier release would have it: another version, and a file that is no more."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    lines = ["Version: 0.0.9-1" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    (tree / "usr" / "share" / "brokerd" / "gone").touch()
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, made], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def provider(box: Box) -> Iterator[str]:
    """The URL of a provider on the box's loopback. It runs from outside, so that no package is in its way."""
    command = [sys.executable, "-m", "tests.servers"]
    with subprocess.Popen(
        ["nsenter", "-t", str(box.pid), "-n", *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
