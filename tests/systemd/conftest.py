"""One box for the tests of a module: an installation of brokerd, and a provider in a unit of its own."""

from collections.abc import Iterator

import pytest

from tests.providers import OAUTH2_CLIENT, OAUTH2_SECRET
from tests.systemd.box import ROOT, Box, booted, missing

DID_NOT_RUN = pytest.StashKey[list[str]]()
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
def box(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Box]:
    if (reason := missing()) is not None:
        request.config.stash.setdefault(DID_NOT_RUN, []).append(reason)
        pytest.skip(reason)
    files = {"/etc/brokerd/brokerd.toml": CONFIGURATION, "/etc/systemd/system/provider.service": PROVIDER}
    with booted(tmp_path_factory.mktemp("box"), files, {ROOT / "tests": "/opt/brokerd/lib/own/tests"}) as made:
        made.run("systemctl", "start", "provider.service")
        made.run(
            "install", "-m", "0640", "-g", "brokerd", "/dev/stdin", "/etc/brokerd/secrets/app", input=OAUTH2_SECRET
        )
        made.run("/opt/brokerd/bin/brokerctl", "keygen", "/etc/brokerd/key")
        made.run("chown", "brokerd:", "/etc/brokerd/key")
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in sorted(set(terminalreporter.config.stash.get(DID_NOT_RUN, []))):
        terminalreporter.ensure_newline()
        terminalreporter.write_line(f"SYSTEMD TESTS DID NOT RUN: {reason}", red=True, bold=True)
