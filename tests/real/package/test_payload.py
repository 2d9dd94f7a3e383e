# What is in the package: the wheels as their hashes know them and nothing else, nothing of the machine that built it,
# the same bytes from every build, and what Debian's own checker says.
from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.systemd.box import ROOT

SITE = "usr/lib/brokerd/lib/python3.11/site-packages"
UNCHECKED = b"\x01\x00\x00\x00"  # PEP 552: by hash, and not compared with the source


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload") / "tree"
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return folder


def test_two_builds_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    other = {**os.environ, "DIST": str(tmp_path), "TZ": "Asia/Kathmandu", "LC_ALL": "C", "TMPDIR": str(tmp_path)}
    subprocess.run(["debian/build.sh"], cwd=ROOT, env=other, umask=0o077, stdout=subprocess.DEVNULL, check=True)
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()


def test_debians_checker_finds_nothing(package: Path) -> None:
    done = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_brings_what_runs_and_no_tools_of_development(tree: Path) -> None:
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE)
    found = {each.name.removesuffix(".dist-info") for each in (tree / SITE).glob("*.dist-info")}
    ours = {each for each in found if each.startswith("brokerd")}
    assert {each.partition("-")[0] for each in ours} == {"brokerd", "brokerd_client"}
    assert {each.lower() for each in found - ours} == {
        f"{name.replace('-', '_')}-{version}" for name, version in locked
    }


def test_every_file_of_a_wheel_is_as_its_record_says(tree: Path) -> None:
    records = sorted((tree / SITE).glob("*.dist-info/RECORD"))
    lines = [line for record in records for line in csv.reader(record.read_text().splitlines())]
    for name, told, _size in lines:
        data = (tree / SITE / name).read_bytes()
        kind, _, digest = told.partition("=")
        if kind:  # RECORD says nothing of itself
            assert base64.urlsafe_b64encode(hashlib.new(kind, data).digest()).decode().rstrip("=") == digest, name
    listed = {(tree / SITE / name).resolve() for name, *_ in lines}
    others = {each for each in (tree / SITE).rglob("*") if each.is_file() and each.suffix != ".pyc"} - listed
    assert others == set()


def test_it_is_compiled_for_where_it_will_lie(tree: Path) -> None:
    for source in (tree / SITE).rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        data = compiled.read_bytes()
        assert data[4:8] == UNCHECKED, compiled
        assert f"/{source.relative_to(tree)}".encode() in data, compiled


def test_nothing_of_the_machine_that_built_it_is_inside(tree: Path) -> None:
    ours = [str(ROOT).encode(), b"/tmp/tmp.", *[sys.base_prefix.encode()] * (sys.base_prefix != "/usr")]
    told = [(each, path) for each in tree.rglob("*") if each.is_file() for path in ours if path in each.read_bytes()]
    assert told == []
    for each in (tree / "usr/lib/brokerd/bin").iterdir():
        if not each.is_symlink():
            assert each.read_text().startswith("#!/usr/lib/brokerd/bin/python3\n"), each
