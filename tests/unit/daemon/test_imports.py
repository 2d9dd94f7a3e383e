# What the start of the daemon imports, until it is ready: each module costs every start, and every test that has one.
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from brokerd.edge.store import key_file

# Packages of others. A further one needs a reason; what it costs: python -X importtime -m brokerd.daemon.main --version
OTHERS = {
    *("brokerd_client", "cryptography", "h11", "msgpack", "msgspec", "prometheus_client", "structlog", "tomli", "trio"),
    *("attr", "attrs", "idna", "outcome", "sniffio", "sortedcontainers"),  # trio's
    "typing_extensions",  # where it is, msgspec and others use it
    "cython_runtime",  # of compiled modules
}
WITHOUT = (
    *("rich", "pygments", "jwt", "xml", "unittest"),
    *("cryptography.x509", "cryptography.hazmat.primitives.asymmetric", "cryptography.hazmat.primitives.serialization"),
    *("brokerd.doctor", "brokerd.files", "brokerd.proxy"),
    "brokerd.core.exchange.signing_keys",
)
CONFIGURATION = """
[daemon]
socket = "{folder}/s"
state_dir = "{folder}/state"
key = {{ file = "{folder}/key" }}

[providers.example]
dialect = "oauth2"
token_url = "https://127.0.0.1:1/token"
authorization_url = "https://127.0.0.1:1/authorize"

[grants.reports]
provider = "example"
grant_type = "authorization_code"
credentials = {{ client_id = "known", client_secret = "a secret" }}

[[allow]]
grants = ["*"]
caller = {{ user = "root" }}
"""


# The daemon, which says when it is ready, and instead of importing more, what it has imported.
PROGRAM = """
import sys
from brokerd.daemon import main

async def said():
    print("imported", *(name for name, each in sys.modules.items() if each), file=sys.stderr, flush=True)

main.import_late = said
main.main()
"""


def imported(folder: Path) -> set[str]:
    """What a start imports, until the daemon is ready."""
    key_file.create(folder / "key")
    config = folder / "brokerd.toml"
    config.write_text(CONFIGURATION.format(folder=folder))
    config.chmod(0o600)
    command = [sys.executable, "-c", PROGRAM, "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("imported "):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, "".join(lines)
    return {name for line in lines if line.startswith("imported ") for name in line.split()[1:]}


def test_a_start_imports_what_it_needs_alone(tmp_path: Path) -> None:
    found = imported(tmp_path)
    assert [name for name in found if any(f"{name}.".startswith(f"{each}.") for each in WITHOUT)] == []
    bare = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    always = set(subprocess.run(bare, capture_output=True, text=True, check=True).stdout.split())
    others = {name.partition(".")[0] for name in found - always} - set(sys.stdlib_module_names)
    assert {each for each in others if not each.startswith("_") and not each.endswith("__mypyc")} - {
        "brokerd",
        "__main__",
        *OTHERS,
    } == set()
