# A person's machine for one client: a home with helpers.toml, brokerd's programs on PATH, a running brokerd with the
# grant `git` (any grant would do), and servers that this person's clients trust.
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.did_not_run import did_not_run
from tests.real.test_examples import folder
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import IxApi, Server
from tests.servers.guarded.guard import certified
from tests.servers.http import Mount

__all__ = ["folder"]

BIN = Path(sys.executable).parent
SDKS = Path(__file__).parents[3] / ".venv-sdks" / "bin" / "python"  # made by make sdks
ENDS_WITHIN = 60.0  # seconds
GRANT = "git"
CA = trustme.CA()


def needs(program: str, *, required: bool = True) -> None:
    """`required`: .ci/run installs it, so that it must be there on CI's machine."""
    if shutil.which(program) is None:
        must = required and os.environ.get("BROKERD_REQUIRE_REAL") == "1"
        did_not_run(f"CLIENT {program}", "it is not installed", required=must)


def python_with(module: str) -> str:
    """An interpreter that has this library: ours, or the machine's."""
    found = [sys.executable, shutil.which("python3") or sys.executable, *([str(SDKS)] if SDKS.exists() else [])]
    imports = (subprocess.run([each, "-c", f"import {module}"], capture_output=True, check=False) for each in found)
    if (with_it := next((done.args[0] for done in imports if done.returncode == 0), None)) is None:
        did_not_run(f"CLIENT {module}", "no Python on this machine has it, and not .venv-sdks; to make that: make sdks")
    return str(with_it)


@dataclass
class Machine:
    """`environment` is that of every program that `run` starts."""

    folder: Path
    brokerd: Brokerd
    provider: IxApi
    nursery: trio.Nursery
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.ca_file = self.folder / "ca.pem"
        CA.cert_pem.write_to_path(self.ca_file)
        self.environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "BROKERD_SOCKET": str(self.brokerd.socket),
            "SSL_CERT_FILE": str(self.ca_file),
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "no_proxy": "*",
        }

    def helpers(self, *uses: dict[str, str]) -> Path:
        """Write this person's helpers.toml."""
        path = self.home / ".config" / "brokerd" / "helpers.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = ("".join(f'{key} = "{value}"\n' for key, value in use.items()) for use in uses)
        path.write_text("".join(f"[[use]]\n{table}" for table in tables))
        path.chmod(0o600)
        return path

    async def serve(self, mount: Mount, *names: str, tls: bool = True) -> Server:
        """A server on a port of its own, with a certificate for these names."""
        server = Server({"": mount}, tls=certified(CA, *names) if tls else None)
        await self.nursery.start(server.run)
        return server

    async def run(
        self, *command: str | Path, stdin: str = "", cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `more`: further variables of its environment."""
        with trio.fail_after(ENDS_WITHIN):
            done = await trio.run_process(
                [str(each) for each in command],
                env=self.environment | more,
                stdin=stdin.encode(),
                cwd=cwd or self.home,
                check=False,
                capture_stdout=True,
                capture_stderr=True,
            )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    @property
    def token(self) -> str:
        """The newest access token that the provider issued."""
        return self.provider.ledger.of_kind("access")[-1].value

    def written(self) -> dict[Path, str]:
        """Every file of the home, for a look whether a token was left there."""
        return {path: path.read_text(errors="replace") for path in self.home.rglob("*") if path.is_file()}


@pytest.fixture
def serving(nursery: trio.Nursery) -> Serving:
    return Serving(nursery)


@pytest.fixture
async def machine(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Machine]:
    brokerd = Brokerd(folder, nursery)
    provider = await Serving(nursery)(IxApi())
    providers: dict[str, Any] = {"ix-api": at(provider)}
    brokerd.configure({GRANT: FIVE["ix"]}, providers, http=True)
    await brokerd.start()
    await brokerd.get(GRANT)
    yield Machine(folder, brokerd, provider, nursery)
    with trio.CancelScope(shield=True):
        await brokerd.close()
