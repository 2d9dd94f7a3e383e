# brokerd as a service under a real systemd: started, reloaded, restarted, killed and hung, with the units as they are
# shipped. The tests follow one installation's life, in their order.
from __future__ import annotations

import pytest

from tests.real.systemd import restarts
from tests.real.systemd.box import Box

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"


def test_from_boot_to_the_first_token(box: Box) -> None:
    box.run("systemctl", "enable", "--now", "brokerd.service")
    assert box.property("brokerd", "ActiveState") == "active"
    assert box.property("brokerd", "StatusText") == "1 grant fresh"
    assert box.run(CTL, "get", "app").strip()
    assert box.run("stat", "-c", "%a %U %G", "/run/brokerd/brokerd.sock").strip() == "660 root brokerd-callers"
    assert box.run("stat", "-c", "%a %U", "/var/lib/brokerd").strip() == "700 brokerd"


def test_who_is_not_in_the_group_does_not_get_in(box: Box) -> None:
    said = box.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", CTL, "get", "app", check=False)
    assert "permission" in said.lower()


def test_programs_of_other_users_are_known_with_the_drop_in_for_it_alone(box: Box) -> None:
    box.run("useradd", "alice")
    exe = box.run("readlink", "-f", "/opt/brokerd/bin/python3").strip()
    rule = f'[[allow]]\ngrants = ["app"]\ncaller = {{ user = "alice", exe = "{exe}" }}\n'
    box.write("/etc/brokerd/conf.d/alice.toml", rule)
    box.run("systemctl", "reload", "brokerd")
    as_alice = ("setpriv", "--reuid=alice", "--regid=alice", "--groups=brokerd-callers", CTL, "get", "app")
    assert "no grant" in box.run(*as_alice, check=False)
    drop_in = "/run/systemd/system/brokerd.service.d/executables.conf"
    box.run("install", "-D", "/usr/local/share/doc/brokerd/drop-ins/executables.conf", drop_in)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "brokerd.service")
    assert box.run(*as_alice) == box.run(CTL, "get", "app")
    box.run("rm", drop_in, "/etc/brokerd/conf.d/alice.toml")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "brokerd.service")


def test_a_reload_keeps_the_process_and_a_bad_file_changes_nothing(box: Box) -> None:
    pid, token = box.property("brokerd", "MainPID"), box.run(CTL, "get", "app")
    box.run("systemctl", "reload", "brokerd")
    box.run("sh", "-c", "echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    assert "failed" in box.run("systemctl", "reload", "brokerd", check=False)
    assert "bad.toml" in box.journal()
    assert box.property("brokerd", "ActiveState") == "active"
    assert box.property("brokerd", "MainPID") == pid
    assert box.run(CTL, "get", "app") == token
    assert "bad.toml" in box.run(CTL, "reload", check=False)
    box.run("rm", "/etc/brokerd/conf.d/bad.toml")


def test_whoever_connects_starts_it(box: Box) -> None:
    token = box.run(CTL, "get", "app")
    box.run("systemctl", "stop", "brokerd.service")
    assert box.run(CTL, "get", "app") == token  # from the store: no provider was asked
    assert box.property("brokerd", "ActiveState") == "active"


def test_restarted_and_killed_under_load_it_fails_nobodys_fetch(box: Box) -> None:
    found = restarts.run(box, lambda times: times < restarts.KILL, every=0.5)
    assert (found.failed, found.exchanges) == ([], 0)
    assert found.fetches > 0


def test_kill_9_is_followed_by_another_start(box: Box) -> None:
    pid = box.property("brokerd", "MainPID")
    box.run("kill", "-9", pid)
    box.until("brokerd", "NRestarts", "1")
    box.until("brokerd", "ActiveState", "active")
    assert box.run(CTL, "get", "app")


def test_a_hung_process_is_noticed_and_started_anew(box: Box) -> None:
    box.run(
        "sh",
        "-c",
        "mkdir -p /run/systemd/system/brokerd.service.d; printf '[Service]\\nWatchdogSec=1\\n'"
        " > /run/systemd/system/brokerd.service.d/quick.conf; systemctl daemon-reload",
    )
    box.run("systemctl", "restart", "brokerd.service")
    before = box.property("brokerd", "NRestarts")
    box.run("kill", "-STOP", box.property("brokerd", "MainPID"))
    box.until("brokerd", "NRestarts", str(int(before) + 1))
    box.until("brokerd", "ActiveState", "active")
    assert "Watchdog timeout" in box.journal()
    assert box.run(CTL, "get", "app")


def test_a_wrong_configuration_is_not_tried_over_and_over(box: Box) -> None:
    box.run("systemctl", "stop", "brokerd.service")
    box.run("sh", "-c", "echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    assert "brokerd cannot start" in box.run(CTL, "get", "app", check=False)  # who connects starts it
    assert box.until("brokerd", "ActiveState", "failed") == "failed"
    assert box.property("brokerd", "ExecMainStatus") == "2"
    assert "bad.toml" in box.journal()
    waiting = box.run("ss", "--no-header", "--unix", "--listening", "src", "/run/brokerd/brokerd.sock").split()[2]
    assert waiting == "0"  # for as long as anybody did, systemd would start it again
    box.run("rm", "/etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "start", "brokerd.service")
    assert box.run(CTL, "get", "app")
