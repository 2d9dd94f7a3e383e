# LoadCredential= from brokerd-credentials.socket under a real systemd, with the lines of docs/systemd.md: which unit
# finds which token, who gets nothing, and what a unit does that has to wait. The tests follow one installation's life,
# in their order.
from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest

from tests.real.systemd.box import ROOT, Box
from tests.real.systemd.installation import CONFIGURATION

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
SOCKET = "/run/brokerd/credentials.sock"
ALICE = 4_101


def block(language: str) -> str:
    """The lines of the page, for a grant of these tests."""
    section = (ROOT / "docs" / "systemd.md").read_text().partition("## Tokens as credentials")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1].replace("reports", "app")


def unit(box: Box, name: str, *settings: str, lines: str | None = None) -> None:
    """A unit with the lines of the page, which prints what it found."""
    prints = ("Type=oneshot", f"StandardOutput=truncate:/run/kept/{name}", "ExecStart=/bin/cat ${TOKEN_FILE}")
    text = (lines or block("ini")) + "\n".join([*prints, *settings, ""])
    box.run("install", "-D", "-m", "0644", "/dev/stdin", f"/etc/systemd/system/{name}", input=text)
    box.run("systemctl", "daemon-reload")


def start(box: Box, name: str) -> str:
    """What the unit found; empty if it did not start."""
    box.run("rm", "-f", f"/run/kept/{name}")
    box.run("systemctl", "start", name, check=False)
    return box.run("sh", "-c", f"cat '/run/kept/{name}' 2>/dev/null", check=False)


def until_said(box: Box, words: str) -> None:
    end = time.monotonic() + 60
    while words not in (journal := box.journal()):
        assert time.monotonic() < end, journal


def as_user(uid: int, *command: str) -> tuple[str, ...]:
    ids = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    return ("setpriv", *ids, "env", f"XDG_RUNTIME_DIR=/run/user/{uid}", *command)


def test_the_socket_is_off_until_the_command_of_the_page_switches_it_on(box: Box) -> None:
    box.write("/usr/lib/sysusers.d/people.conf", f"u alice {ALICE}\n")
    box.run("systemd-sysusers")
    box.run("install", "-d", "-m", "1777", "/run/kept")
    box.run("systemctl", "enable", "--now", "brokerd.service")
    assert box.property("brokerd-credentials.socket", "UnitFileState") == "disabled"
    assert "credentials.sock" not in box.run(CTL, "doctor", "--offline", check=False)
    box.run("sh", "-c", "systemctl enable brokerd-credentials.socket && systemctl restart brokerd")
    assert box.run("stat", "-c", "%a %U %G", SOCKET).strip() == "600 root root"
    assert f"{SOCKET}: root may connect" in box.run(CTL, "doctor", "--offline", check=False)


def test_a_unit_without_a_rule_does_not_start_and_the_log_says_what_to_do(box: Box) -> None:
    unit(box, "portal.service")
    assert start(box, "portal.service") == ""
    assert box.property("portal.service", "Result") == "exit-code"
    journal = box.journal()
    assert "a unit got no credential" in journal
    assert "unit=portal.service" in journal
    assert "caller = { unit = 'portal.service' }" in journal
    assert "nothing is allowed" in box.run(
        CTL, "explain", "app", "--credential", "--unit", "portal.service", check=False
    )
    unit(box, "lenient.service", lines=block("ini").partition("#")[0])
    assert start(box, "lenient.service") == ""
    assert box.property("lenient.service", "Result") == "success"  # systemd takes no answer for an empty credential


def test_with_the_rule_of_the_page_it_finds_the_token_and_nothing_else(box: Box) -> None:
    box.write("/etc/brokerd/conf.d/portal.toml", block("toml"))
    box.run(CTL, "reload")
    assert "app: may get" in box.run(CTL, "explain", "app", "--credential", "--unit", "portal.service")
    token = box.run(CTL, "get", "app").strip()
    assert start(box, "portal.service") == token
    unit(box, "portal.service", lines=block("ini").replace("app:", "app.json:").replace("%d/app", "%d/app.json"))
    assert f'"access_token":"{token}"' in start(box, "portal.service")


@pytest.mark.parametrize(
    "settings",
    [
        ("User=alice",),
        ("DynamicUser=yes",),
        ("PrivateNetwork=yes", "PrivateUsers=yes", "ProtectSystem=strict", "PrivateTmp=yes"),
        ("Delegate=yes", "User=alice"),
        ("Slice=apps-more.slice",),
    ],
    ids=lambda settings: settings[0],
)
def test_however_the_unit_is_restricted(box: Box, settings: Sequence[str]) -> None:
    unit(box, "portal.service", *settings)
    assert start(box, "portal.service") == box.run(CTL, "get", "app").strip()


def test_an_instance_of_a_template_has_a_name_of_its_own(box: Box) -> None:
    name = "portal@de\\x2dch.service"
    rule = block("toml").replace("portal.service", name.replace("\\", "\\\\"))
    box.write("/etc/brokerd/conf.d/instance.toml", rule)
    box.run(CTL, "reload")
    unit(box, "portal@.service", "StandardOutput=truncate:/run/kept/%I")
    box.run("systemctl", "start", name)
    assert box.run("cat", "/run/kept/de-ch") == box.run(CTL, "get", "app").strip()
    box.run("systemctl", "start", "portal@other.service", check=False)
    assert box.property("portal@other.service", "Result") == "exit-code"


def test_a_user_who_binds_the_address_gets_nothing(box: Box) -> None:
    box.write("/etc/systemd/system/brokerd-credentials.socket.d/all.conf", "[Socket]\nSocketMode=0666\n")
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind(b'\\0c0ffee/unit/portal.service/app'); "
        f"s.connect('{SOCKET}'); s.shutdown(1); print(s.recv(100))"
    )
    forged = as_user(ALICE, "/usr/bin/python3", "-c", program)
    assert "PermissionError" in box.run(*forged, check=False)  # the socket is root's
    box.run("sh", "-c", "systemctl daemon-reload && systemctl stop brokerd.service brokerd-credentials.socket")
    box.run("systemctl", "start", "brokerd.service")
    assert box.run(*forged).strip() == "b''"
    assert re.search(rf'names portal.service; its process is in [^"]+" user=alice uid={ALICE}', box.journal())
    in_the_unit = ("-p", "User=alice", "-p", "Type=oneshot", "-p", "StandardOutput=truncate:/run/kept/forged")
    box.run("rm", "-f", "/etc/systemd/system/portal.service")
    box.run("systemctl", "daemon-reload")
    box.run("systemd-run", "--quiet", "--unit=portal.service", *in_the_unit, "/usr/bin/python3", "-c", program)
    assert box.run("cat", "/run/kept/forged").strip() == "b''"
    assert f"its process is in that unit, and its uid is {ALICE}: it is not systemd" in box.journal()


def test_a_unit_of_a_users_systemd_gets_what_its_rule_says(box: Box) -> None:
    rule = block("toml").replace('unit = "portal.service"', 'user = "alice", user_unit = "job.service"')
    box.write("/etc/brokerd/conf.d/job.toml", rule)
    box.run(CTL, "reload")
    box.run("systemctl", "start", f"user@{ALICE}.service")
    said = ("-p", f"LoadCredential=app:{SOCKET}", "-p", "Type=oneshot", "-p", "StandardOutput=truncate:/run/kept/job")
    for name, found in (("job.service", box.run(CTL, "get", "app").strip()), ("portal.service", "")):
        runs = ("systemd-run", "--user", "--quiet", "--collect", f"--unit={name}", *said, "/bin/sh", "-c")
        box.run(*as_user(ALICE, *runs, "cat $CREDENTIALS_DIRECTORY/app"))
        assert box.run("cat", "/run/kept/job") == found
    assert "caller = { user = 'alice', user_unit = 'portal.service' }" in box.journal()


def test_a_service_beside_it_restarts_the_unit_when_the_token_changes(box: Box) -> None:
    unit(box, "portal.service", "RemainAfterExit=yes")
    first = start(box, "portal.service")
    text = block("systemd").replace("brokerctl watch", f"{CTL} watch")
    box.run("install", "-m", "0644", "/dev/stdin", "/etc/systemd/system/portal-token.service", input=text)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "portal-token.service")
    invocation = box.property("portal.service", "InvocationID")
    box.run(CTL, "refresh", "app")
    end = time.monotonic() + 30
    while (second := box.run("cat", "/run/kept/portal.service")) == first or not second:
        assert time.monotonic() < end, box.journal("portal-token")
    assert second == box.run(CTL, "get", "app").strip()
    assert box.property("portal.service", "InvocationID") != invocation
    box.run("systemctl", "stop", "portal-token.service", "portal.service")


def test_a_wrong_configuration_lets_no_unit_wait(box: Box) -> None:
    unit(box, "portal.service")
    box.run("systemctl", "stop", "brokerd.service")
    box.run("sh", "-c", "echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    assert start(box, "portal.service") == ""
    assert box.property("portal.service", "Result") == "exit-code"
    assert "brokerd cannot start" in box.journal()
    box.run("systemctl", "stop", "brokerd.service")  # another start may be under way, with the wrong configuration
    box.run("rm", "/etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "reset-failed", "brokerd.service", check=False)
    box.run("systemctl", "start", "brokerd.service")


def test_a_unit_waits_at_the_boot_until_the_provider_answers(box: Box) -> None:
    unit(box, "portal.service")
    box.run("systemctl", "stop", "provider.service", "brokerd.service")
    box.run("sh", "-c", "rm -r /var/lib/brokerd/*")
    box.run("systemctl", "start", "--no-block", "portal.service")  # the connection starts brokerd
    until_said(box, "a unit waits for its credential")
    assert box.property("portal.service", "ActiveState") == "activating"
    box.run("systemctl", "start", "provider.service")
    box.until("portal.service", "ActiveState", "inactive", "failed")
    assert box.property("portal.service", "Result") == "success"
    assert box.run("cat", "/run/kept/portal.service") == box.run(CTL, "get", "app").strip()


def test_the_wait_is_as_long_as_the_start_of_the_unit_may_take(box: Box) -> None:
    away = CONFIGURATION.replace("[providers.oauth2]", "[providers.away]").replace(":8080", ":9")
    away = away.replace("[grants.app]", "[grants.away]").replace('provider    = "oauth2"', 'provider    = "away"')
    box.write("/etc/brokerd/conf.d/away.toml", away)
    box.write("/etc/brokerd/conf.d/portal.toml", block("toml").replace("app", "away"))
    box.run(CTL, "reload")
    unit(box, "portal.service", "TimeoutStartSec=4s", lines=block("ini").replace("app", "away"))
    assert start(box, "portal.service") == ""
    assert box.property("portal.service", "Result") == "timeout"
    until_said(box, "systemd ended the start of the unit (TimeoutStartSec=): away")


def test_an_uninstall_switches_it_off_too(box: Box) -> None:
    box.run(CTL, "uninstall", "--system")
    assert box.run("sh", "-c", "systemctl list-unit-files 'brokerd*' --no-legend", check=False).strip() == ""
    assert box.run("sh", "-c", "ls /etc/systemd/system/*.wants | grep brokerd", check=False) == ""
