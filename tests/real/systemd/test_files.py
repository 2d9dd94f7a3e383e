# brokerd-files@USER under a real systemd: it runs as that user, a service is reloaded when its token changes, and what
# the sandbox forbids is named with its remedy. The tests follow one installation's life, in their order.
from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from brokerd.core.files.contents import Contents, Values
from tests.did_not_run import did_not_run
from tests.project.test_docs import page
from tests.real.systemd.box import Box
from tests.real.systemd.test_sandbox import UNITS, described, version

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
UNIT = "brokerd-files@portal.service"
TOKEN = "/run/brokerd-files/portal/token"
RULE = '[[allow]]\ngrants = ["app"]\ncaller = { user = "portal" }\n'
FILES = f"""\
[[file]]
path      = "{TOKEN}"
grant     = "app"
on_change = {{ reload = "portal.service" }}
"""
PORTAL = f"""\
[Service]
User=portal
RuntimeDirectory=portal
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'cat {TOKEN} >>/run/portal/seen; echo >>/run/portal/seen'
"""


@pytest.fixture(scope="module")
def portal(box: Box) -> Box:
    """A user with a service of its own, who may have the token of "app"."""
    box.run("useradd", "--system", "--groups", "brokerd-callers", "portal")
    box.write("/etc/brokerd/conf.d/portal.toml", RULE)
    box.run("install", "-D", "-m", "0644", "/dev/stdin", "/etc/brokerd/files/portal.toml", input=FILES)
    box.run("install", "-m", "0644", "/dev/stdin", "/etc/systemd/system/portal.service", input=PORTAL)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "enable", "--now", "brokerd.socket", "brokerd.service")
    box.run("systemctl", "start", "portal.service")
    return box


def until(holds: Callable[[], bool], box: Box, within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, box.journal(UNIT)
        time.sleep(0.05)


def test_the_service_of_a_user_is_ready_when_its_file_is_written(portal: Box) -> None:
    portal.run("systemctl", "enable", "--now", UNIT)
    assert portal.run("cat", TOKEN) == portal.run(CTL, "get", "app").strip()
    assert portal.run("stat", "-c", "%a %U", TOKEN, "/run/brokerd-files/portal").split("\n")[:2] == [
        "400 portal",
        "755 portal",
    ]
    until(lambda: portal.property(UNIT, "StatusText").startswith("1 file fresh"), portal)
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert "Permission denied" in portal.run(*as_nobody, "cat", TOKEN, check=False)


def test_without_the_right_to_reload_the_log_says_which_page_helps(portal: Box) -> None:
    until(lambda: "on_change failed" in portal.journal(UNIT), portal)
    assert "see The right to reload a unit in brokerd-files.toml(5)" in portal.journal(UNIT)
    until(lambda: "reload portal.service failed" in portal.property(UNIT, "StatusText"), portal)


def test_with_the_rule_of_the_page_the_service_is_reloaded_on_every_change(portal: Box) -> None:
    if portal.run("sh", "-c", "test -d /etc/polkit-1/rules.d && echo there", check=False).strip() != "there":
        did_not_run("RELOADING A UNIT AS A USER", "polkit is not installed")
    rule = re.search(r"^polkit.addRule.*?^}\);$", page("docs/files.md"), re.MULTILINE | re.DOTALL)
    assert rule
    # polkit reads a new file once, and perhaps before its mode and content are there.
    portal.run("install", "-m", "0644", "/dev/stdin", "/etc/polkit-1/portal.new", input=rule[0])
    portal.run("mv", "/etc/polkit-1/portal.new", "/etc/polkit-1/rules.d/50-portal.rules")
    first = portal.run("cat", TOKEN)
    portal.run("systemctl", "restart", UNIT)  # what is due is remembered, and is not waited for
    until(lambda: seen(portal)[-1:] == [first], portal)
    portal.run(CTL, "refresh", "app")
    until(lambda: seen(portal)[-1] == portal.run(CTL, "get", "app").strip() != first, portal)
    assert portal.run("cat", TOKEN) == seen(portal)[-1]
    until(lambda: portal.property(UNIT, "StatusText") == "1 file fresh", portal)


def seen(box: Box) -> list[str]:
    """The tokens that portal.service found at its reloads."""
    return [line for line in box.run("cat", "/run/portal/seen", check=False).splitlines() if line]


def test_root_needs_no_rule_of_polkit(portal: Box) -> None:
    """As for nginx: its configuration is read by root. The unit has no capabilities for root either."""
    place, unit = "/run/brokerd-files/root/token", "brokerd-files@root.service"
    mine = FILES.replace(TOKEN, place).replace("portal.service", "rooted.service")
    portal.run("install", "-m", "0644", "/dev/stdin", "/etc/brokerd/files/root.toml", input=mine)
    rooted = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/touch /run/rooted-was-reloaded\n"
    portal.run("install", "-m", "0644", "/dev/stdin", "/etc/systemd/system/rooted.service", input=rooted)
    portal.run("systemctl", "daemon-reload")
    portal.run("systemctl", "start", "rooted.service", unit)
    assert portal.run("cat", place) == portal.run("cat", TOKEN)
    until(lambda: portal.run("ls", "/run/rooted-was-reloaded", check=False).startswith("/run/rooted"), portal)
    portal.run("systemctl", "stop", "rooted.service", unit)


def test_a_killed_service_comes_back_and_nothing_is_written_again(portal: Box) -> None:
    inode, reloads = portal.run("stat", "-c", "%i", TOKEN), len(seen(portal))
    pid = portal.property(UNIT, "MainPID")
    portal.run("systemctl", "kill", "-s", "KILL", UNIT)
    until(lambda: portal.property(UNIT, "MainPID") not in ("0", pid), portal)
    portal.until(UNIT, "ActiveState", "active")
    portal.run("systemctl", "restart", "brokerd.service")
    assert (portal.run("stat", "-c", "%i", TOKEN), len(seen(portal))) == (inode, reloads)


def test_a_reload_with_a_mistake_fails_and_changes_nothing(portal: Box) -> None:
    path = "/etc/brokerd/files/portal.toml"
    portal.run("sh", "-c", f"echo 'mode = 5' >> {path}")
    assert "Job for brokerd-files@portal.service failed" in portal.run("systemctl", "reload", UNIT, check=False)
    assert "portal.toml:5: file[0].mode: expected text, found 5" in portal.journal(UNIT)
    assert portal.property(UNIT, "ActiveState") == "active"
    more = '[[file]]\npath = "/srv/portal/header"\ngrant = "app"\nformat = "header"\n'
    portal.run("install", "-m", "0644", "/dev/stdin", path, input=FILES + more)
    portal.run("install", "-d", "-o", "portal", "/srv/portal")
    portal.run("systemctl", "reload", UNIT)
    words = "let the unit write there: a drop-in with [Service] ReadWritePaths=/srv/portal"
    until(lambda: words in portal.journal(UNIT), portal)


def test_with_the_drop_in_of_the_message_it_writes_elsewhere_too(portal: Box) -> None:
    place = f"/etc/systemd/system/{UNIT}.d/paths.conf"
    portal.run("install", "-D", "-m", "0644", "/dev/stdin", place, input="[Service]\nReadWritePaths=/srv/portal\n")
    portal.run("systemctl", "daemon-reload")
    portal.run("systemctl", "restart", UNIT)
    assert portal.run("cat", "/srv/portal/header") == f"Authorization: Bearer {portal.run('cat', TOKEN)}\n"


def test_a_revoked_token_goes_and_the_service_is_reloaded(portal: Box) -> None:
    portal.run(CTL, "revoke", "app", "--yes")
    until(lambda: "No such file" in portal.run("cat", TOKEN, check=False), portal)
    assert "No such file" in portal.run("cat", "/srv/portal/header", check=False)
    assert "file removed" in portal.journal(UNIT)


def test_a_missing_file_is_named_and_the_service_is_not_started_again(portal: Box) -> None:
    portal.run("systemctl", "start", "brokerd-files@daemon.service", check=False)
    assert portal.until("brokerd-files@daemon.service", "ActiveState", "failed") == "failed"
    assert "/etc/brokerd/files/daemon.toml: there is no such file" in portal.journal("brokerd-files@daemon.service")
    assert portal.property("brokerd-files@daemon.service", "NRestarts") == "0"


def test_a_users_own_systemd_keeps_files_too_and_needs_no_right(portal: Box) -> None:
    portal.run(CTL, "login", "app", "--yes", check=False)  # ends the revocation
    portal.run("useradd", "--create-home", "--groups", "brokerd-callers", "alice")
    portal.write("/etc/brokerd/conf.d/alice.toml", RULE.replace("portal", "alice"))
    portal.run(CTL, "reload")
    uid = portal.run("id", "-u", "alice").strip()
    portal.run("loginctl", "enable-linger", "alice")
    portal.until(f"user@{uid}.service", "ActiveState", "active")
    runtime = f"XDG_RUNTIME_DIR=/run/user/{uid}"
    alice = ("setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "env", "--chdir=/home/alice")
    alice = (*alice, "HOME=/home/alice", runtime)
    portal.run(*alice, CTL, "install", "--user")
    token = f"/run/user/{uid}/token"
    mine = FILES.replace(TOKEN, token).replace("portal.service", "page.service")
    portal.run(*alice, "sh", "-c", "umask 077; cat > .config/brokerd/files.toml", input=mine)
    unit = PORTAL.replace("User=portal\n", "").replace(TOKEN, "%t/token").replace("/run/portal", "%t/portal")
    portal.run(*alice, "sh", "-c", "mkdir -p .config/systemd/user; cat >.config/systemd/user/page.service", input=unit)
    portal.run(*alice, "systemctl", "--user", "daemon-reload")
    portal.run(*alice, "systemctl", "--user", "start", "page.service")
    portal.run(*alice, "systemctl", "--user", "enable", "--now", "brokerd-files.service")
    value = portal.run(CTL, "get", "app").strip()
    assert portal.run("cat", token) == value
    until(lambda: value in portal.run("cat", f"/run/user/{uid}/portal/seen", check=False), portal)


def test_systemd_reads_an_environment_file_back_whatever_is_in_it(portal: Box) -> None:
    """The real parser of EnvironmentFile=."""
    values = ["plain", "a b", "a'b", 'a"b', "$HOME", "`id`", "\\", "a\\", '"', "#x", ";x", "~", "x=y", "\\n", "%h", "é"]
    fields = {f"F{number}": value for number, value in enumerate(values)}
    made = Contents("env", None, newline=True).of(Values("app", "t", "Bearer", None, {}, fields)).decode()
    portal.run("install", "-m", "0600", "/dev/stdin", "/run/odd.env", input=made)
    said = portal.run("systemd-run", "--quiet", "--wait", "--pipe", "-p", "EnvironmentFile=/run/odd.env", "env", "-0")
    found = dict(each.split("=", 1) for each in said.split("\0") if each.startswith("FIELD_"))
    assert found == {f"FIELD_{name}": value for name, value in fields.items()}


def test_an_uninstall_ends_it(portal: Box) -> None:
    portal.run(CTL, "uninstall", "--system")
    assert portal.property(UNIT, "ActiveState") == "inactive"
    assert portal.run("sh", "-c", "ls /etc/systemd/system/*.wants | grep brokerd-files", check=False) == ""


def test_the_page_says_what_the_sandbox_leaves_open() -> None:
    score, text = described("brokerd-files@.service", "### brokerd-files@USER", most=0.4)
    assert f"brokerd-files@.service`: {score}" in text or "systemd 252 " not in version()


@pytest.mark.parametrize("unit", ["brokerd-files@.service", "user/brokerd-files.service"])
def test_what_a_unit_says_is_not_set_is_not(unit: str) -> None:
    lines, _, comments = (UNITS / unit).read_text().partition("# Not set, and why")
    named = re.findall(r"^#   (\w+=) ", comments, re.MULTILINE)
    assert named
    assert [name for name in named if re.search(rf"^{name}", lines, re.MULTILINE)] == []
