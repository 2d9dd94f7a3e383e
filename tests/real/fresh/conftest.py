"""A fresh machine: a clean Debian 12 with what README.md asks for, a checkout, nothing in anybody's home, and the
package index that this machine uses. Of this machine's caches and of what is installed here it has nothing."""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.real.systemd.box import ROOT, Box, booted, missing

DEBIAN = ROOT / "build" / "debian-12-fresh"
PACKAGES = ("python3-venv", "make", "debhelper")  # README.md names each
CHECKOUT, HOME = "/root/brokerd", "/root"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
NAMES = ("/etc/resolv.conf", "/etc/hosts")
QUIETLY = 'APT::Get::Assume-Yes "true";\n'
INDEX = "https://pypi.org/simple"
WITHIN = 1500.0  # seconds for a command; `make test` is the longest

Fresh = Callable[[], AbstractContextManager["FreshMachine"]]


class FreshMachine:
    """What somebody types as root, in the checkout."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.path = PATH

    def types(self, command: str, *, check: bool = True) -> str:
        where = {"HOME": HOME, "PATH": self.path, "LANG": "C.UTF-8", "USER": "root", **index()}
        environ = [f"{name}={value}" for name, value in where.items()]
        return self.box.run("env", "-i", "-C", CHECKOUT, *environ, "bash", "-c", command, check=check, within=WITHIN)


def index() -> dict[str, str]:
    """Where pip gets packages from, and nothing else that is set for it here: no cache, no folder of wheels."""
    found = {"PIP_CERT": AUTHORITIES, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("index-url", "trusted-host", "proxy"):
        for scope in (":env:", "global", "install"):
            asked = [sys.executable, "-m", "pip", "config", "get", f"{scope}.{name}"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found.setdefault(f"PIP_{name.replace('-', '_').upper()}", done.stdout.strip())
    return found


def why_not() -> str | None:
    """Why no fresh machine can be had here; None where it can."""
    if (reason := missing()) is not None:
        return reason
    if shutil.which("mmdebstrap") is None and not DEBIAN.exists():
        return "it needs mmdebstrap (apt-get install mmdebstrap)"
    url = index().get("PIP_INDEX_URL", INDEX)
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/pip/", timeout=20):
            return None
    except OSError as error:
        return f"it needs a package index, and there is none to be had: {error}"


@pytest.fixture(scope="session")
def debian() -> Path:
    if (reason := why_not()) is not None:
        did_not_run("A FRESH MACHINE", reason, required=os.environ.get("BROKERD_REQUIRE_REAL") == "1")
    made = (ROOT / "tests/real/package/root.sh").stat().st_mtime
    if not DEBIAN.exists() or DEBIAN.stat().st_mtime < made:
        subprocess.run([ROOT / "tests/real/package/root.sh", DEBIAN, *PACKAGES], check=True)
    return DEBIAN


@pytest.fixture(scope="session")
def fresh(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    files = {name: Path(name).read_text() for name in NAMES} | {"/etc/apt/apt.conf.d/99quietly": QUIETLY}

    @contextlib.contextmanager
    def made() -> Iterator[FreshMachine]:
        authorities = {AUTHORITIES: Path(AUTHORITIES).read_text()}
        with booted(tmp_path_factory.mktemp("box"), files | authorities, {}, debian, online=True) as box:
            check_out(box)
            yield FreshMachine(box)

    return made


def check_out(box: Box) -> None:
    """What git has or would take, as somebody finds it who has cloned it."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    target = box.root / CHECKOUT.lstrip("/")
    target.mkdir()
    pack = subprocess.run(
        ["tar", "-c", "--null", "--no-recursion", "-T", "-"], cwd=ROOT, input=names, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", target], input=pack.stdout, check=True)
