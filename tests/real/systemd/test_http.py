# brokerd-http.socket under a real systemd: off, switched on, restarted, with a wrong configuration, switched off. The
# tests follow one installation's life, in their order.
from __future__ import annotations

import json

import pytest

from tests.real.systemd.box import Box

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
SOCKET = "/run/brokerd/http.sock"
CURL = ("curl", "-sS", "--max-time", "30", "--unix-socket", SOCKET)
TOKEN = "http://brokerd/v1/token/app"


def test_http_is_off_until_it_is_switched_on(box: Box) -> None:
    box.run("systemctl", "enable", "--now", "brokerd.service")
    assert box.property("brokerd-http.socket", "UnitFileState") == "disabled"
    assert box.run("sh", "-c", f"test -e {SOCKET} && echo there", check=False) == ""
    assert "http" not in box.run(CTL, "doctor", "--offline", check=False)


def test_the_command_of_the_page_switches_it_on(box: Box) -> None:
    box.run("sh", "-c", "systemctl enable brokerd-http.socket && systemctl restart brokerd")
    assert json.loads(box.run(*CURL, TOKEN))["access_token"] == box.run(CTL, "get", "app").strip()
    assert box.run("stat", "-c", "%a %U %G", SOCKET).strip() == "660 root brokerd-callers"
    assert f"{SOCKET}: root and the group brokerd-callers" in box.run(CTL, "doctor", "--offline", check=False)


def test_who_is_not_in_the_group_does_not_get_in(box: Box) -> None:
    said = box.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *CURL, TOKEN, check=False)
    assert "access_token" not in said
    assert "connect" in said.lower()


def test_who_connects_starts_brokerd_and_a_restart_refuses_nobody(box: Box) -> None:
    box.run("systemctl", "stop", "brokerd.service")
    assert "access_token" in box.run(*CURL, TOKEN)
    assert box.property("brokerd", "ActiveState") == "active"
    box.run("systemctl", "restart", "brokerd.service")
    assert "access_token" in box.run(*CURL, TOKEN)
    assert box.run(CTL, "get", "app")


def test_a_wrong_configuration_is_said_in_http(box: Box) -> None:
    box.run("systemctl", "stop", "brokerd.service")
    box.run("sh", "-c", "echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    found = json.loads(box.run(*CURL, TOKEN, check=False))
    assert (found["error"], "journalctl" in found["message"]) == ("misconfigured", True)
    assert box.until("brokerd", "ActiveState", "failed") == "failed"
    box.run("rm", "/etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "start", "brokerd.service")


def test_the_other_command_switches_it_off(box: Box) -> None:
    box.run("sh", "-c", "systemctl disable --now brokerd-http.socket && systemctl restart brokerd")
    assert box.run(*CURL, TOKEN, check=False).startswith("curl: (7)")
    assert box.run(CTL, "get", "app")


def test_metrics_can_be_read_at_a_port_from_within_the_sandbox(box: Box) -> None:
    write = "printf '[http]\\nmetrics = \"127.0.0.1:9464\"\\n' > /etc/brokerd/conf.d/metrics.toml"
    box.run("sh", "-c", f"{write} && systemctl restart brokerd")
    found = box.run("curl", "-sS", "--max-time", "30", "http://127.0.0.1:9464/metrics")
    assert 'brokerd_grant_ready{grant="app"' in found
    assert "process_open_fds" in found
    assert "http://127.0.0.1:9464/metrics answers" in box.run(CTL, "doctor", "--offline", check=False)
    box.run("rm", "/etc/brokerd/conf.d/metrics.toml")


def test_an_uninstall_switches_it_off_too(box: Box) -> None:
    box.run("sh", "-c", "systemctl enable brokerd-http.socket && systemctl restart brokerd")
    box.run(CTL, "uninstall", "--system")
    assert box.run("sh", "-c", "systemctl list-unit-files 'brokerd*' --no-legend", check=False).strip() == ""
    assert box.run("sh", "-c", "ls /etc/systemd/system/*.wants | grep brokerd", check=False) == ""
