"""One box for the tests of a module: an installation of brokerd, and a provider in a unit of its own."""

from collections.abc import Iterator

import pytest

from tests.announced import did_not_run
from tests.providers import OAUTH2_CLIENT, OAUTH2_SECRET
from tests.systemd.box import ROOT, Box, booted, missing

PROVIDER = """\
[Service]
Environment=PYTHONPATH=/opt/brokerd/lib/own:/opt/brokerd/lib/client:/opt/brokerd/lib/packages PYTHONDONTWRITEBYTECODE=1
ExecStart=/bin/sh -c 'sleep infinity | exec /usr/bin/python3 -m tests.providers --port 8080'
"""
CONFIGURATION = f"""\
[providers.oauth2]
dialect        = "oauth2"
token_url      = "http://127.0.0.1:8080/oauth2/token"
revocation_url = "http://127.0.0.1:8080/oauth2/revoke"

[grants.app]
provider    = "oauth2"
grant_type  = "client_credentials"
credentials = {{ client_id = "{OAUTH2_CLIENT}", client_secret = {{ file = "/etc/brokerd/secrets/app" }} }}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if (reason := missing()) is not None:
        did_not_run("SYSTEMD TESTS", reason)
    files = {"/etc/brokerd/brokerd.toml": CONFIGURATION, "/etc/systemd/system/provider.service": PROVIDER}
    with booted(tmp_path_factory.mktemp("box"), files, {ROOT / "tests": "/opt/brokerd/lib/own/tests"}) as made:
        made.run("systemctl", "start", "provider.service")
        made.run(
            "install", "-m", "0640", "-g", "brokerd", "/dev/stdin", "/etc/brokerd/secrets/app", input=OAUTH2_SECRET
        )
        made.run("/opt/brokerd/bin/brokerctl", "keygen", "/etc/brokerd/key")
        made.run("chown", "brokerd:", "/etc/brokerd/key")
        yield made
