# pip, uv and twine, which ask keyring for the password of their index: as a subprocess, or imported.
from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.real.clients.conftest import BIN, GRANT, Machine, needs, python_with
from tests.servers.guarded.index import WHEEL, IndexServer, wheel

PROJECT = "brokerd-probe"


class Index:
    def __init__(self, machine: Machine, api: IndexServer, port: int) -> None:
        self.machine, self.api, self.port = machine, api, port
        self.target = machine.home / "target"
        own = machine.home / ".local" / "bin"  # as pipx does it: pip ignores the keyring of its own environment
        own.mkdir(parents=True)
        (own / "keyring").symlink_to(BIN / "keyring")
        machine.environment["PATH"] = f"{own}:{machine.environment['PATH']}"
        machine.environment |= {"PIP_CERT": str(machine.ca_file), "REQUESTS_CA_BUNDLE": str(machine.ca_file)}

    def url(self, user: str = "bot@", host: str = "localhost", path: str = "simple") -> str:
        return f"https://{user}{host}:{self.port}/{path}/"

    async def pip(self, url: str, provider: str) -> str:
        """What pip says; it installs the project into `target`."""
        words = ("install", "--isolated", "--no-input", "--no-deps", "--no-cache-dir", "--target", str(self.target))
        more = ("--disable-pip-version-check", "--retries", "0", "--keyring-provider", provider, "--cert")
        done = await self.machine.run(BIN / "pip", *words, *more, self.machine.ca_file, "--index-url", url, PROJECT)
        return done.stdout + done.stderr

    @property
    def installed(self) -> bool:
        return (self.target / "brokerd_probe.py").exists()


NEEDED = (23, 1)  # the first pip with --keyring-provider


@pytest.fixture
async def index(machine: Machine) -> Index:
    api = IndexServer(machine.provider)
    server = await machine.serve(api)
    machine.helpers(
        {"url": f"https://localhost:{server.port}/*", "grant": GRANT, "username": "bot"},
    )
    return Index(machine, api, server.port)


@pytest.mark.parametrize("provider", ["subprocess", "import"])
async def test_pip_installs_with_a_token_as_the_password(index: Index, provider: str) -> None:
    found = version("pip")
    if tuple(map(int, found.split(".")[:2])) < NEEDED:
        did_not_run("PIP WITH KEYRING", f"it needs pip 23.1, here is pip {found}")
    said = await index.pip(index.url(), provider)
    assert index.installed, f"{index.api.shown} {said}"
    assert {each[1:] for each in index.api.shown} == {("Basic", "bot", index.machine.token)}
    assert index.machine.token not in said + "".join(index.machine.written().values())


async def test_pip_asks_by_a_subprocess_only_if_the_url_has_a_user(index: Index) -> None:
    await index.pip(index.url(user=""), "subprocess")
    assert (index.installed, index.api.shown) == (False, [])


async def test_a_look_alike_index_gets_no_token(index: Index) -> None:
    for url in (index.url(host="127.0.0.1"), index.url(user="other@"), index.url(user="localhost@", host="127.0.0.1")):
        said = await index.pip(url, "subprocess")
        assert (index.installed, index.api.shown) == (False, []), said


@pytest.fixture
def uv() -> None:
    needs("uv", required=False)


async def test_uv_installs_with_a_token_as_the_password(uv: None, index: Index) -> None:
    words = ("pip", "install", "--no-config", "--no-cache", "--target", str(index.target), "--keyring-provider")
    python = shutil.which("python3") or "python3"
    done = await index.machine.run("uv", *words, "subprocess", "--python", python, "--index-url", index.url(), PROJECT)
    assert done.returncode == 0, done.stderr
    assert index.installed
    assert {each[1:] for each in index.api.shown} == {("Basic", "bot", index.machine.token)}


@pytest.fixture
def built(machine: Machine) -> Path:
    path = machine.home / WHEEL
    path.write_bytes(wheel())
    return path


@pytest.fixture
def twine() -> str:
    return python_with("twine, brokerd_client, keyring")


async def test_twine_uploads_with_a_token_as_the_password(twine: str, built: Path, index: Index) -> None:
    words = ("-m", "twine", "upload", "--non-interactive", "--disable-progress-bar", "--username", "bot")
    done = await index.machine.run(twine, *words, "--repository-url", index.url(user="", path="legacy"), built)
    assert done.returncode == 0, done.stdout + done.stderr
    assert index.api.uploads == [WHEEL]
    assert {each[1:] for each in index.api.shown} == {("Basic", "bot", index.machine.token)}
