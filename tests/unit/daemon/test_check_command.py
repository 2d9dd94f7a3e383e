# `brokerd --check`: what it prints, and what it looks at beyond the configuration itself.
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brokerd.core.validation import ConfigError
from brokerd.edge.store import key_file
from brokerd.setup.check import check_configuration
from tests.unit.config.files import (
    GRANT,
    write,
)


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return tmp_path / "brokerd.toml"


def checked(main: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brokerd.daemon.main", "--config", str(main), "--check"]
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)


def complete(main: Path) -> str:
    """A configuration whose key and secrets are there."""
    key_file.create(main.parent / "key")
    write(main.parent / "secret", "hunter2\n")
    daemon = f'[daemon]\nkey = {{ file = "{main.parent}/key" }}\nstate_dir = "{main.parent}/state"\n'
    grant = GRANT.replace('"/s"', f'"{main.parent}/secret"')
    return f'{daemon}{grant}[[allow]]\ngrants = ["*"]\ncaller = {{ uid = 5 }}'


def test_check_says_that_a_configuration_is_right_and_touches_nothing(main: Path) -> None:
    write(main, complete(main))
    before = sorted(main.parent.iterdir())
    done = checked(main)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{main}: the configuration is right: 1 provider, 1 grant, 1 rule\n"
    assert sorted(main.parent.iterdir()) == before


def test_check_names_a_secret_that_is_most_likely_mistaken(main: Path) -> None:
    write(main, complete(main))
    write(main.parent / "secret", "\ufeffhunter2\n\n")
    done = checked(main)
    assert (done.returncode, done.stdout.count("is right")) == (0, 1)
    assert re.fullmatch(
        rf"brokerd: warning: {main}:\d+: grants.g.credentials.api_secret: {main.parent}/secret has a byte order mark "
        r"\(BOM\) at its beginning and a line break at its end, which is sent as a part of the secret; remove it, "
        "unless it belongs to the secret\n",
        done.stderr,
    )


def test_check_says_in_one_line_what_is_wrong(main: Path) -> None:
    write(main, GRANT + 'scope = "repo"')
    key_file.create(main.with_name("key"))
    done = checked(main)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'brokerd: {main}:8: grants.g.scope: expected an array, found "repo"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("/secret", "/nowhere"),
            "grants.g.credentials.api_secret: DIR/nowhere: No such file or directory; "
            "write the secret there, in a file that only brokerd can read",
        ),
        (
            ('/key"', '/nowhere"'),
            "daemon.key: there is no key at DIR/nowhere; put the store's own key there, "
            "or for a new store make one with: brokerctl keygen DIR/nowhere",
        ),
        (
            ('/key"', '/secret"'),
            'daemon.key: expected one line "brokerd-key-1:" and 32 bytes in base64, found something else; make a key '
            "with: brokerctl keygen FILE",
        ),
        (("dialect  =", 'proxy = "ftp://x"\ndialect  ='), "providers.ix: "),
    ],
    ids=["no secret", "no key", "no key in it", "no proxy"],
)
def test_check_looks_at_what_the_configuration_names(main: Path, change: tuple[str, str], message: str) -> None:
    write(main, complete(main).replace(*change))
    with pytest.raises(ConfigError) as caught:
        check_configuration(str(main))
    found = str(caught.value).replace(str(main), "CONFIG").replace(str(main.parent), "DIR")
    assert found.startswith(f"CONFIG: {message}")
    assert "hunter2" not in found
