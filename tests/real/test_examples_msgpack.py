# examples/msgpack/: clients of docs/protocol.md in Go and Node, built and run with their own toolchains: against
# docs/vectors.json, and against a running brokerd and an API.
from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.real.test_examples_http import BUILDS_WITHIN, ENDS_WITHIN, LINES, brokerd, folder, ix
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import IX_API_KEY, IxApi, OAuth2
from tests.servers.oauth2 import Settings
from tests.unit.client.vectors import vectors

__all__ = ["brokerd", "folder", "ix"]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "msgpack"
VECTORS = ROOT / "docs" / "vectors.json"
FILES = {"go": ("client.go", "codec.go", "conform.go"), "node": ("client.mjs", "codec.mjs", "conform.mjs")}


@pytest.fixture(scope="module", params=FILES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a client, built once."""
    if shutil.which(request.param) is None:
        required = os.environ.get("BROKERD_REQUIRE_REAL") == "1"  # .ci/run installs it
        did_not_run("examples/msgpack", f"it needs {request.param}", required=required)
    files = [str(EXAMPLES / name) for name in FILES[request.param]]
    if request.param == "node":
        return ["node", files[0]]
    made = tmp_path_factory.mktemp("example")
    environment = {**os.environ, "GOCACHE": str(made / "cache"), "GO111MODULE": "off"}
    command = ["go", "build", "-o", str(made / "client"), *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILDS_WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    return [str(made / "client")]


async def run(client: list[str], *words: str, brokerd: Brokerd | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "no_proxy": "127.0.0.1", "BROKERD_SOCKET": str(brokerd.socket) if brokerd else ""}
    with trio.fail_after(ENDS_WITHIN):
        return await trio.run_process(
            [*client, *words], env=environment, check=False, capture_stdout=True, capture_stderr=True
        )


async def test_a_client_reads_and_packs_every_vector(client: list[str]) -> None:
    groups = ("good", "refused", "broken", "partial")
    count = sum(each.values[0].get("to") != "daemon" for group in groups for each in vectors(group))
    done = await run(client, "vectors", str(VECTORS))
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", f"{count} vectors\n".encode())


@pytest.mark.parametrize(
    ("group", "wrong"),
    [
        ("good", {"hex": "940002a36765749181a56772616e74a769782d70726f64"}),  # means another id
        ("good", {"message": [0, 0, "hello", [{}]]}),
        ("good", {"hex": "9400cc00a568656c6c6f90"}),  # packed longer than need be
        ("broken", {"hex": "940102c080"}),
        ("broken", {"hex": "94"}),
        ("partial", {"hex": "c1"}),
    ],
)
async def test_a_vector_that_is_wrong_is_noticed(
    client: list[str], tmp_path: Path, group: str, wrong: dict[str, object]
) -> None:
    file = json.loads(VECTORS.read_text())
    file[group][0] |= wrong
    changed = tmp_path / "vectors.json"
    changed.write_text(json.dumps(file))
    done = await run(client, "vectors", str(changed))
    assert done.returncode == 1
    assert f"{group}: {file[group][0]['means']}: ".encode() in done.stderr


async def test_a_client_calls_an_api_and_has_a_refused_token_replaced(
    client: list[str], brokerd: Brokerd, ix: IxApi
) -> None:
    for _ in range(2):
        done = await run(client, "ix", f"{ix.base_url}/me", brokerd=brokerd)
        assert (done.returncode, done.stderr) == (0, b"")
        assert IX_API_KEY.encode() in done.stdout
        ix.forget_access_tokens()
    assert ix.counts.refused == 1


async def test_a_client_says_what_is_wrong(client: list[str], brokerd: Brokerd, ix: IxApi) -> None:
    done = await run(client, "ix", f"{ix.base_url}/nothing", brokerd=brokerd)
    assert (done.returncode, b"404" in done.stderr) == (1, True)
    await brokerd.call("revoke", grant="ix")
    done = await run(client, "ix", f"{ix.base_url}/me", brokerd=brokerd)
    assert (done.returncode, b"was revoked" in done.stderr) == (1, True)
    await brokerd.stop()
    done = await run(client, "ix", f"{ix.base_url}/me", brokerd=brokerd)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


async def test_a_long_token_is_named_by_its_hash(client: list[str], folder: Path, nursery: trio.Nursery) -> None:
    """A request has 64 KiB at most, and a token may have 256 KiB."""
    provider = await Serving(nursery)(OAuth2(Settings(access_padding=250_000)))
    brokerd = Brokerd(folder, nursery)
    brokerd.configure({"ix": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    shown: list[bytes] = []

    async def api(stream: trio.SocketStream) -> None:
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        shown.append(bytes(head))
        status = b"200 OK" if len(shown) > 1 else b"401 Unauthorized"
        await stream.send_all(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await stream.aclose()

    [listener] = await nursery.start(partial(trio.serve_tcp, api, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    done = await run(client, "ix", f"http://127.0.0.1:{port}/", brokerd=brokerd)
    await brokerd.close()
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"ok")
    first, second = (each.value.encode() for each in provider.ledger.of_kind("access"))
    assert [first in shown[0], second in shown[1]] == [True, True]


def test_every_file_is_short_and_tested() -> None:
    files = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.iterdir()}
    assert files.keys() == {name for names in FILES.values() for name in names}
    assert {name: lines for name, lines in files.items() if lines > 4 * LINES} == {}
