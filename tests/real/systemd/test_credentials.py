# A client's secret as a systemd credential, sealed on the disk: missing, wrong and replaced, as an operator meets it.
from __future__ import annotations

import json

import pytest

from tests.real.systemd.box import Box
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
SEALED = "/etc/credstore.encrypted/reports-secret"
GRANT = f"""\
[grants.reports]
provider    = "oauth2"
grant_type  = "client_credentials"
credentials = {{ client_id = "{OAUTH2_CLIENT}", client_secret = {{ credential = "reports-secret" }} }}
"""


def seal(box: Box, secret: str) -> None:
    box.run("systemd-creds", "encrypt", "--name=reports-secret", "-", SEALED, input=secret)
    box.run("systemctl", "restart", "brokerd.service")


def status(box: Box) -> dict[str, str | None]:
    found = json.loads(box.run(CTL, "status", "--json", "reports"))
    grant: dict[str, str | None] = found["grants"][0]
    return grant


def test_a_secret_that_is_missing_costs_its_own_grant_alone_and_is_named(box: Box) -> None:
    example = "/usr/local/share/doc/brokerd/drop-ins/credentials.conf"
    box.run("install", "-D", "-t", "/etc/systemd/system/brokerd.service.d", example)
    box.write("/etc/brokerd/conf.d/reports.toml", GRANT)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "brokerd.service")
    assert box.run(CTL, "get", "app")
    said = box.run(CTL, "get", "reports", "--wait", "0", check=False)
    assert "reports-secret" in said, said


def test_a_wrong_one_is_refused_by_the_provider_and_a_new_one_is_taken_at_the_next_start(box: Box) -> None:
    seal(box, "test-only-another-secret")
    assert status(box)["state"] != "ready"
    seal(box, OAUTH2_SECRET)
    token = box.run(CTL, "get", "reports")
    assert token
    assert status(box)["state"] == "ready"
    assert box.run("grep", "-raFl", OAUTH2_SECRET, SEALED, "/var/lib/brokerd", check=False) == ""


def test_it_is_in_no_process_and_no_folder_that_others_see(box: Box) -> None:
    pid = box.property("brokerd", "MainPID")
    assert OAUTH2_SECRET not in box.run("sh", "-c", f"tr '\\0' '\\n' </proc/{pid}/environ; cat /proc/{pid}/cmdline")
    looks = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat"]
    assert "denied" in box.run(*looks, "/run/credentials/brokerd.service/reports-secret", check=False)
