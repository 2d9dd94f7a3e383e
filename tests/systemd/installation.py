# One installation of brokerd in a box: README.md's steps, with a provider in a unit of its own.
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.providers import OAUTH2_CLIENT, OAUTH2_SECRET
from tests.systemd.box import ROOT, Box, booted

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


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Box]:
    """A box in which nothing is missing but the start."""
    files = {"/etc/brokerd/brokerd.toml": CONFIGURATION, "/etc/systemd/system/provider.service": PROVIDER}
    with booted(folder, files, {ROOT / "tests": "/opt/brokerd/lib/own/tests"}) as made:
        made.run("systemctl", "start", "provider.service")
        made.run(
            "install", "-m", "0640", "-g", "brokerd", "/dev/stdin", "/etc/brokerd/secrets/app", input=OAUTH2_SECRET
        )
        made.run("/opt/brokerd/bin/brokerctl", "keygen", "/etc/brokerd/key")
        made.run("chown", "brokerd:", "/etc/brokerd/key")
        yield made
