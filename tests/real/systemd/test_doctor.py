# brokerctl doctor under a real systemd: what it says of an installation that is whole, and of what an operator forgot.
from __future__ import annotations

import json

import pytest

from tests.real.systemd.box import Box

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
PROXY = "systemctl edit brokerd: Environment=HTTPS_PROXY=http://HOST:PORT, or set proxy in [providers.NAME]"
SURROUNDINGS = ("clock", "disk", "memory")  # of the machine that the tests run on
Told = tuple[str, str, str]  # check, level, remedy


def look(box: Box, *user: str) -> dict[tuple[str, str], dict[str, str]]:
    """By check and level."""
    said = box.run(*user, CTL, "doctor", "--json", check=False)
    assert "test-only" not in said
    return {(each["check"], each["level"]): each for each in json.loads(said)["findings"]}


def troubles(seen: dict[tuple[str, str], dict[str, str]]) -> list[Told]:
    found = seen.items()
    return [
        (check, level, each["remedy"]) for (check, level), each in found if level != "ok" and check not in SURROUNDINGS
    ]


def test_an_installation_that_is_whole(box: Box) -> None:
    box.run("systemctl", "enable", "--now", "brokerd.service")
    found = look(box)
    assert troubles(found) == []
    assert found["socket", "ok"]["found"].endswith(
        "brokerd.sock: root and the group brokerd-callers (brokerd, brokerd-proxy) may connect"
    )
    assert found["user", "ok"]["found"] == "brokerd runs as brokerd"
    assert found["unit", "ok"]["found"] == "brokerd.service is enabled and active"
    assert found["endpoint", "ok"]["found"].startswith("http://127.0.0.1:8080/oauth2/token answers 4")


def test_a_caller_outside_the_group_learns_how_to_get_in_and_what_they_cannot_see(box: Box) -> None:
    found = look(box, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert found["access", "problem"]["remedy"] == "usermod -aG brokerd-callers nobody, as root; then log in again"
    assert found["configuration", "warning"]["remedy"] == "sudo brokerctl doctor"


def test_what_was_forgotten(box: Box) -> None:
    spoilt = (
        "chgrp root /etc/brokerd/secrets/app",
        "touch /usr/local/lib/systemd/system/brokerd.service",
        "systemctl stop provider",
        "chmod 644 /var/lib/brokerd/brokerd.db",
    )
    box.run("sh", "-c", "; ".join(spoilt))
    assert troubles(look(box, "env", "HTTPS_PROXY=http://test-only-user:test-only-password@proxy:1")) == [
        ("secrets", "problem", "chgrp brokerd /etc/brokerd/secrets/app && chmod g+r /etc/brokerd/secrets/app"),
        ("permissions", "problem", "chmod 600 /var/lib/brokerd/brokerd.db"),
        ("unit", "warning", "systemctl daemon-reload"),
        ("proxy", "warning", PROXY),
        ("connection", "problem", "curl -sv -o /dev/null http://127.0.0.1:8080/"),
    ]
    box.run("sh", "-c", "systemctl daemon-reload; systemctl disable brokerd.service; systemctl start provider")
    box.run("sh", "-c", "chmod 710 /etc/brokerd/secrets; chgrp root /etc/brokerd/secrets")
    box.run("chmod", "600", "/var/lib/brokerd/brokerd.db")
    box.run("systemctl", "stop", "brokerd.socket", "brokerd.service")
    assert troubles(look(box)) == [
        ("secrets", "problem", "chgrp brokerd /etc/brokerd/secrets && chmod g+x /etc/brokerd/secrets"),
        ("unit", "warning", "systemctl enable brokerd"),
        ("unit", "problem", "systemctl start brokerd"),
        ("socket", "problem", "systemctl start brokerd"),
    ]


def test_a_daemon_that_refused_its_configuration(box: Box) -> None:
    box.run("sh", "-c", "systemctl enable brokerd.service; echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "start", "brokerd.service", check=False)
    check = "brokerd --config /etc/brokerd/brokerd.toml --check"
    assert troubles(look(box)) == [
        ("configuration", "problem", f"correct it, then check again: {check}"),
        ("unit", "problem", f"{check}; then: systemctl start brokerd"),
    ]
