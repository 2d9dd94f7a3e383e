# examples/http/: each application, built and run with its own toolchain, against a running brokerd and an API.
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.real.test_examples import folder
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import IX_API_KEY, IxApi

__all__ = ["folder"]

EXAMPLES = Path(__file__).parents[2] / "examples" / "http"
BUILDS_WITHIN, ENDS_WITHIN = 300.0, 60.0  # seconds
PROGRAMS: dict[
    str, Callable[[Path], tuple[list[str], list[str]]]
] = {  # file: how to build it in a folder, how to run it
    "app_http.sh": lambda _: ([], ["sh", str(EXAMPLES / "app_http.sh")]),
    "app.go": lambda made: (["go", "build", "-o", str(made / "app"), str(EXAMPLES / "app.go")], [str(made / "app")]),
    "app.mjs": lambda _: ([], ["node", str(EXAMPLES / "app.mjs")]),
    "App.java": lambda made: (
        ["javac", "-d", str(made), str(EXAMPLES / "App.java")],
        ["java", "-cp", str(made), "App"],
    ),
    "app.rs": lambda made: (["rustc", "-o", str(made / "app"), str(EXAMPLES / "app.rs")], [str(made / "app")]),
}
NEEDED = {"app_http.sh": "curl", "app.go": "go", "app.mjs": "node", "App.java": "javac", "app.rs": "rustc"}
LINES = 60


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of an application, built once."""
    needed = NEEDED[request.param]
    there = shutil.which(needed) is not None
    if there and needed == "rustc":  # that of rustup may have no compiler behind it
        there = subprocess.run(["rustc", "--version"], capture_output=True, check=False).returncode == 0
    if not there:
        did_not_run(f"examples/http/{request.param}", f"it needs {NEEDED[request.param]}")
    made = tmp_path_factory.mktemp("example")
    build, run = PROGRAMS[request.param](made)
    if build:
        environment = {**os.environ, "GOCACHE": str(made / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        done = subprocess.run(
            build, env=environment, capture_output=True, text=True, timeout=BUILDS_WITHIN, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
    return run


@pytest.fixture
async def brokerd(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Brokerd]:
    made = Brokerd(folder, nursery)
    yield made
    with trio.CancelScope(shield=True):
        await made.close()


@pytest.fixture
async def ix(brokerd: Brokerd, nursery: trio.Nursery) -> IxApi:
    """A brokerd with HTTP and the grant `ix`, which has its first token; and that provider."""
    provider = await Serving(nursery)(IxApi())
    brokerd.configure({"ix": FIVE["ix"]}, {"ix-api": at(provider)}, http=True)
    await brokerd.start()
    await brokerd.get("ix")
    return provider


async def run(program: list[str], brokerd: Brokerd, grant: str, url: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "BROKERD_HTTP_SOCKET": str(brokerd.http_socket), "no_proxy": "127.0.0.1"}
    with trio.fail_after(ENDS_WITHIN):
        return await trio.run_process(
            [*program, grant, url], env=environment, check=False, capture_stdout=True, capture_stderr=True
        )


async def test_an_application_calls_an_api_and_has_a_refused_token_replaced(
    program: list[str], brokerd: Brokerd, ix: IxApi
) -> None:
    done = await run(program, brokerd, "ix", f"{ix.base_url}/me")
    assert (done.returncode, done.stderr) == (0, b"")
    assert IX_API_KEY.encode() in done.stdout
    ix.forget_access_tokens()
    done = await run(program, brokerd, "ix", f"{ix.base_url}/me")
    assert (done.returncode, done.stderr) == (0, b"")
    assert IX_API_KEY.encode() in done.stdout
    assert ix.counts.refused == 1


async def test_an_application_says_what_is_wrong(program: list[str], brokerd: Brokerd, ix: IxApi) -> None:
    done = await run(program, brokerd, "ix", f"{ix.base_url}/nothing")
    assert (done.returncode, b"404" in done.stderr) == (1, True)
    await brokerd.call("revoke", grant="ix")
    done = await run(program, brokerd, "ix", f"{ix.base_url}/me")
    assert done.returncode == 1
    assert b"was revoked" in done.stderr


def test_every_application_is_short_and_tested() -> None:
    files = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.iterdir()}
    assert files.keys() == PROGRAMS.keys()
    assert {name: lines for name, lines in files.items() if lines >= LINES} == {}
