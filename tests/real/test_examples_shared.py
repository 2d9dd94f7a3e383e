# examples/shared/: readers of shared tokens in C and Go, built with their own toolchains: against docs/vectors.json and
# against a running brokerd.
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.real.test_examples_http import BUILDS_WITHIN, ENDS_WITHIN, brokerd, folder, ix
from tests.scenario.daemon.harness import Brokerd, until
from tests.servers import IxApi
from tests.unit.client.vectors import vectors

__all__ = ["brokerd", "folder", "ix"]

EXAMPLES = Path(__file__).parents[2] / "examples" / "shared"
FILES = {"cc": "reader.c", "go": "reader.go"}
SIZE = 64 * 1024


@pytest.fixture(scope="module", params=FILES)
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reader, built once."""
    if shutil.which(request.param) is None:
        required = os.environ.get("BROKERD_REQUIRE_REAL") == "1"  # .ci/run installs it
        did_not_run("examples/shared", f"it needs {request.param}", required=required)
    made = tmp_path_factory.mktemp("example")
    program, source = str(made / "reader"), str(EXAMPLES / FILES[request.param])
    environment = {**os.environ, "GOCACHE": str(made / "cache"), "GO111MODULE": "off"}
    command = ["go", "build", "-o", program, source]
    if request.param == "cc":
        command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILDS_WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    return program


def test_a_reader_says_of_every_vector_what_it_means(reader: str, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    for each in vectors("shared"):
        [vector] = each.values
        memory.write_bytes(vector["bytes"].ljust(SIZE, b"\0"))
        command = [reader, "check", str(memory), str(vector["now"])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_WITHIN, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{vector['says']}\n", ""), vector["means"]


async def test_a_reader_sees_a_renewal_and_a_revocation(reader: str, brokerd: Brokerd, ix: IxApi) -> None:
    value = await brokerd.get("ix")
    environment = {**os.environ, "BROKERD_SOCKET": str(brokerd.socket)}
    async with trio.open_nursery() as nursery:
        with trio.fail_after(ENDS_WITHIN):
            process = await trio.lowlevel.open_process(
                [reader, "ix"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            nursery.start_soon(process.wait)
            assert process.stdin is not None
            assert process.stdout is not None

            async def reads() -> str:
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdin.send_all(b"\n")
                line = b""
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive_some()
                return line.decode().rstrip()

            async def says(words: str) -> bool:
                return await reads() == words

            assert await reads() == value
            await brokerd.call("refresh", grant="ix")
            after = await brokerd.get("ix")
            assert after != value
            await until(lambda: says(after))
            await brokerd.call("revoke", grant="ix")
            await until(lambda: says("closed"))
            await process.stdin.aclose()
    assert process.returncode == 0
    await process.stdout.aclose()


def test_a_reader_that_gets_no_token_says_so(reader: str, tmp_path: Path) -> None:
    environment = {**os.environ, "BROKERD_SOCKET": str(tmp_path / "nothing")}
    done = subprocess.run([reader, "ix"], env=environment, capture_output=True, timeout=ENDS_WITHIN, check=False)
    assert done.returncode == 1


def test_every_file_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == set(FILES.values())
