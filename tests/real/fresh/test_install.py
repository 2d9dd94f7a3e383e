# Every command of README.md's section "Install", word for word, on a fresh machine that resolves what it needs from the
# package index; then brokerd runs and brokerctl answers. Each way to install has a machine of its own.
from __future__ import annotations

import re

import pytest

from tests.real.fresh.conftest import Fresh, FreshMachine
from tests.real.fresh.readme import INSTALL, NAMED, WAYS

VENV, PIPX, DEB, CLIENT = WAYS
PIPX_LEAST = re.findall(r"pipx (\d+\.\d+) or newer", INSTALL)[0]


def test_every_command_of_the_section_is_run_here() -> None:
    assert [way[0].split()[0] for way in WAYS] == ["python3", "pipx", "make", "pip"]
    assert NAMED == ["brokerctl install", "brokerctl uninstall --system"]


def starts_and_answers(machine: FreshMachine) -> None:
    """The service and its command, as `brokerctl install` or the package has left them."""
    machine.types("systemctl enable --now brokerd.socket brokerd.service")
    assert machine.box.property("brokerd", "ActiveState") == "active"
    assert re.search(r"^brokerd \S+, pid \d+", machine.types("brokerctl status"), re.MULTILINE)
    version = machine.types("brokerd --version").split()[-1]
    assert f"brokerd {version}" in machine.types("brokerctl status")
    assert "the configuration is right" in machine.types("brokerd --check")


def test_by_a_virtual_environment_and_away_again(fresh: Fresh) -> None:
    with fresh() as machine:
        for command in VENV[:-1]:
            machine.types(command)
        said = machine.types(f"{VENV[-1]} --dry-run")
        assert "brokerd.service: would be written" in said
        assert "brokerd.service: written" in machine.types(VENV[-1])
        starts_and_answers(machine)
        machine.types(NAMED[-1])
        assert machine.box.property("brokerd", "LoadState") == "not-found"


@pytest.mark.parametrize("version", ["", f"=={PIPX_LEAST}.0"], ids=["newest", "least"])
def test_by_pipx(fresh: Fresh, version: str) -> None:
    with fresh() as machine:
        machine.types(f"python3 -m venv /opt/own && /opt/own/bin/pip install -q 'pipx{version}'")
        machine.path = f"{machine.path}:/opt/own/bin"
        for command in PIPX:
            machine.types(command)
        starts_and_answers(machine)


def test_by_the_debian_package(fresh: Fresh) -> None:
    with fresh() as machine:
        for command in DEB:
            machine.types(command)
        starts_and_answers(machine)


def test_the_client_library_in_an_applications_environment(fresh: Fresh) -> None:
    with fresh() as machine:
        machine.types("python3 -m venv /opt/application")
        machine.path = f"/opt/application/bin:{machine.path}"
        for command in CLIENT:
            machine.types(command)
        tried = machine.types("python3 -c 'import brokerd_client; brokerd_client.Broker().get(\"app\")'", check=False)
        assert "brokerd_client.errors.NoDaemon" in tried
