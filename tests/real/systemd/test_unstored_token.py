# A refresh token that a full disk did not take, under a real systemd. brokerd is killed, hung and restarted: it goes on
# with this token and never sends the older one. When there is room again, it stores the token, and systemd holds
# nothing any more.
from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.real.systemd.box import SLOW, TICK, Box
from tests.servers import OAUTH2_CLIENT, OAUTH2_PASSWORD, OAUTH2_USER
from tests.waiting import pauses

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
WITHIN = 40.0  # seconds; the store is tried again after 30 at the latest
GRANT = f"""\
[grants.spends]
provider    = "oauth2"
grant_type  = "password"
credentials = {{ client_id = "{OAUTH2_CLIENT}", client_secret = {{ file = "/etc/brokerd/secrets/app" }}, \
username = "{OAUTH2_USER}", password = "{OAUTH2_PASSWORD}" }}
"""
PADDING = (
    200_000  # characters of a token, for a record larger than the room that a start gains by clearing SQLite's log
)
QUICK = "/run/systemd/system/brokerd.service.d/quick.conf"  # a watchdog that needs no minute


def provider(box: Box, **orders: object) -> dict[str, Any]:
    """Give the provider orders; its counts."""
    if orders:
        text = json.dumps({"provider": "oauth2", **orders})
        box.run("curl", "-sf", "--json", text, "http://127.0.0.1:8080/_faults")
    found: dict[str, Any] = json.loads(box.run("curl", "-sf", "http://127.0.0.1:8080/_counts"))["oauth2"]
    return found


def status(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run(CTL, "status", "--json", "spends"))["grants"][0]
    return found


def until(holds: Any) -> None:
    end = time.monotonic() + WITHIN
    for pause in pauses(TICK, SLOW):
        if holds():
            break
        assert time.monotonic() < end
        time.sleep(pause)


@pytest.fixture(scope="module")
def full(box: Box) -> str:
    """brokerd on a disk that was filled while the provider answered; the token that came."""
    box.run("sh", "-c", "umask 077; cat > /etc/brokerd/conf.d/spends.toml", input=GRANT)
    box.run("chgrp", "brokerd", "/etc/brokerd/conf.d/spends.toml")
    box.run("chmod", "0640", "/etc/brokerd/conf.d/spends.toml")
    box.run("mkdir", "-p", "/var/lib/brokerd", QUICK.rpartition("/")[0])
    box.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", "/var/lib/brokerd")
    box.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=3\\n' > {QUICK}; systemctl daemon-reload")
    box.run("systemctl", "start", "brokerd.service")
    before = box.run(CTL, "get", "spends").strip()
    provider(box, settings={"access_padding": PADDING}, hold={"operation": "refresh"})
    box.run("systemd-run", "--unit=refresh", CTL, "refresh", "spends")
    until(lambda: provider(box)["by_operation"].get("refresh") == 1)
    box.run("dd", "if=/dev/zero", "of=/var/lib/brokerd/ballast", "bs=1k", check=False)
    provider(box, release=True)
    until(lambda: status(box)["unstored"])
    assert box.property("brokerd", "NFileDescriptorStore") == "1"
    value = box.run(CTL, "get", "spends").strip()
    assert value != before
    return value


@pytest.mark.parametrize("how", ["killed", "hung", "restarted"])
def test_the_token_outlives_the_process(box: Box, full: str, how: str) -> None:
    pid = box.property("brokerd", "MainPID")
    if how == "restarted":
        box.run("systemctl", "restart", "brokerd.service")
    else:
        box.run("kill", "-9" if how == "killed" else "-STOP", pid)
    until(lambda: box.property("brokerd", "MainPID") not in (pid, "0"))
    box.until("brokerd", "ActiveState", "active")
    assert box.property("brokerd", "NFileDescriptorStore") == "1"
    found = status(box)
    assert (found["unstored"], found["generation"], found["interrupted"]) == (True, 2, None)
    assert box.run(CTL, "get", "spends").strip() == full
    assert "cannot be written" in box.run(CTL, "refresh", "spends", check=False)
    assert provider(box)["by_operation"]["refresh"] == 1, "a refresh token was sent without a journal"


def test_with_room_again_it_is_stored_and_held_no_longer(box: Box, full: str) -> None:
    box.run("rm", "/var/lib/brokerd/ballast")
    until(lambda: not status(box)["unstored"])
    until(lambda: box.property("brokerd", "NFileDescriptorStore") == "0")
    box.run("systemctl", "restart", "brokerd.service")
    assert box.run(CTL, "get", "spends").strip() == full
    box.run(CTL, "refresh", "spends")
    counts = provider(box)
    assert (counts["by_operation"]["refresh"], counts["reused"], counts["families_killed"]) == (2, 0, 0)
