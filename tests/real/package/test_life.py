# The package's life on a clean Debian 12 that really runs: installed, upgraded under load, met with a wrong
# configuration, removed, installed again, purged. The tests follow that life, in its order.
from __future__ import annotations

import re

import pytest

from tests.real.package.conftest import INSIDE
from tests.real.systemd.box import Box
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET

pytestmark = pytest.mark.real
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet")
BROKERD = ("brokerd.service", "brokerd.socket")
# What dpkg, apt, systemd and the user database remember of any package.
REMEMBERED = re.compile(
    r"/(var/(lib/(dpkg|apt|systemd)|log|cache)|etc/(passwd|group|g?shadow|subuid|subgid)-?$|etc/\.pwd)"
)
CONFIGURATION = """\
[providers.oauth2]
dialect   = "oauth2"
token_url = "{url}/oauth2/token"

[grants.app]
provider    = "oauth2"
grant_type  = "client_credentials"
credentials = {{ client_id = "{client}", client_secret = {{ file = "/etc/brokerd/secrets/app" }} }}
"""
CALLER = """\
import pathlib, time
from brokerd_client import Broker
done, longest, enough = 0, 0.0, pathlib.Path("/tmp/enough")
with Broker() as broker:
    while not enough.exists():
        began = time.monotonic()
        assert broker.get("app").value
        longest = max(longest, time.monotonic() - began)
        done += 1
        pathlib.Path("/tmp/fetches").write_text(f"{done} {longest:.2f}")
        time.sleep(0.005)
pathlib.Path("/tmp/all").touch()
"""


@pytest.fixture(scope="module")
def before(box: Box) -> set[str]:
    return files(box)


def test_it_installs_on_a_clean_debian_and_runs(box: Box, before: set[str]) -> None:
    box.run(*APT, f"{INSIDE}/older.deb")
    for unit in BROKERD:
        assert box.property(unit, "ActiveState") == "active"
        assert box.property(unit, "UnitFileState") == "enabled"
    assert mode(box, "/etc/brokerd/key") == "600 brokerd:brokerd"
    assert mode(box, "/etc/brokerd/brokerd.toml") == "640 root:brokerd"
    assert mode(box, "/etc/brokerd") == "751 root:brokerd"
    assert mode(box, "/var/lib/brokerd") == "700 brokerd:brokerd"
    assert re.fullmatch("660 root:brokerd-callers", mode(box, "/run/brokerd/brokerd.sock"))
    box.run("brokerd", "--check")


def test_it_serves_what_the_configuration_names(box: Box, provider: str) -> None:
    text = CONFIGURATION.format(url=provider, client=OAUTH2_CLIENT)
    box.run("tee", "/etc/brokerd/brokerd.toml", input=text)
    box.run("install", "-m", "0640", "-g", "brokerd", "/dev/stdin", "/etc/brokerd/secrets/app", input=OAUTH2_SECRET)
    box.run("systemctl", "reload", "brokerd")
    assert token(box)


def test_an_upgrade_under_load_fails_nobodys_fetch(box: Box) -> None:
    was, pid, socket = token(box), box.property("brokerd", "MainPID"), listens(box)
    box.run("systemd-run", "--unit=caller", "/usr/lib/brokerd/bin/python3", "-c", CALLER)
    box.run("timeout", "30", "sh", "-c", "until [ -s /tmp/fetches ]; do sleep 0.02; done")
    box.run(*APT, f"{INSIDE}/brokerd.deb")
    assert box.property("brokerd", "ActiveState") == "active"
    box.run("touch", "/tmp/enough")
    box.until("caller", "ActiveState", "inactive", "failed")
    box.run("test", "-e", "/tmp/all")  # it is there where none failed
    assert box.property("brokerd", "MainPID") != pid
    assert listens(box) == socket
    assert token(box) == was  # from the store: no provider was asked
    assert "/usr/share/brokerd/gone" not in files(box)


def test_a_wrong_configuration_is_brokerds_matter_and_not_dpkgs(box: Box) -> None:
    key = box.run("sha256sum", "/etc/brokerd/key")
    box.run("tee", "/etc/brokerd/conf.d/bad.toml", input="[grants.half")
    box.run("dpkg", "--install", f"{INSIDE}/brokerd.deb")
    assert state(box) == "install ok installed"
    assert box.property("brokerd", "ExecMainStatus") == "2"
    assert "bad.toml" in box.journal()
    box.run("rm", "/etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "start", "brokerd")
    assert token(box)
    assert box.run("sha256sum", "/etc/brokerd/key") == key


def test_a_removal_keeps_what_is_the_operators(box: Box) -> None:
    was, pid = token(box), box.property("brokerd", "MainPID")
    box.run("dpkg", "--remove", "brokerd")
    assert state(box) == "deinstall ok config-files"
    left = {each for each in files(box) if "brokerd" in each and not REMEMBERED.match(each)}
    assert left >= {"/etc/brokerd/brokerd.toml", "/etc/brokerd/key", "/var/lib/brokerd"}
    assert [each for each in left if each.startswith(("/usr", "/lib", "/run", "/opt"))] == []
    box.run("test", "!", "-e", f"/proc/{pid}")
    box.run("test", "!", "-e", "/run/brokerd")
    box.run("dpkg", "--install", f"{INSIDE}/brokerd.deb")
    assert token(box) == was  # configuration, key and store are those from before


def test_a_purge_leaves_nothing(box: Box, before: set[str]) -> None:
    box.run("dpkg", "--purge", "brokerd")
    assert {each for each in files(box) - before if not REMEMBERED.match(each)} == set()
    assert [each for each in files(box) if "brokerd" in each and "/var/log" not in each] == []
    for unit in BROKERD:
        assert box.property(unit, "LoadState") == "not-found"
    assert box.run("getent", "passwd", "brokerd")  # as Debian advises: files elsewhere may be its


def files(box: Box) -> set[str]:
    """What lies on the disk of the box, as apart from what lies in its memory."""
    return set(box.run("find", "/", "-xdev", "-path", "/tmp", "-prune", "-o", "-print").splitlines())


def mode(box: Box, path: str) -> str:
    return box.run("stat", "--format", "%a %U:%G", path).strip()


def token(box: Box) -> str:
    return box.run("brokerctl", "get", "app").strip()


def listens(box: Box) -> str:
    """Another one where the socket was closed in between, however briefly."""
    return box.run("stat", "--format", "%i", "/run/brokerd/brokerd.sock") + box.property(
        "brokerd.socket", "ActiveEnterTimestampMonotonic"
    )


def state(box: Box) -> str:
    return box.run("dpkg-query", "--show", "--showformat", "${Status}", "brokerd")
