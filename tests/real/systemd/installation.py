# brokerd in a box, as a package alone or installed as README.md has it, with a provider in a unit of its own.
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.real.systemd.box import ROOT, Box, booted
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET

PROVIDER = """\
[Service]
Environment=PYTHONPATH=/opt/brokerd/lib/own:/opt/brokerd/lib/client:/opt/brokerd/lib/packages PYTHONDONTWRITEBYTECODE=1
ExecStart=/bin/sh -c 'sleep infinity | exec /usr/bin/python3 -m tests.servers --port 8080'
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
def unpacked(folder: Path) -> Iterator[Box]:
    """A box with brokerd as pip leaves it, and a provider that runs."""
    files = {"/etc/systemd/system/provider.service": PROVIDER}
    with booted(folder, files, {ROOT / "tests": "/opt/brokerd/lib/own/tests"}) as made:
        made.run("systemctl", "start", "provider.service")
        yield made


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Box]:
    """A box in which nothing is missing but the start."""
    with unpacked(folder) as made:
        install(made)
        yield made


def install(box: Box) -> None:
    """As README.md has it, and a grant."""
    text = (ROOT / "README.md").read_text()
    box.run("sh", "-c", next(line for line in text.splitlines() if line.startswith("/opt/brokerd/bin/brokerctl")))
    box.write("/etc/brokerd/conf.d/app.toml", CONFIGURATION)
    box.write("/etc/brokerd/secrets/app", OAUTH2_SECRET)
