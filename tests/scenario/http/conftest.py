"""The daemon of tests/scenario/daemon, with HTTP, and curl at its socket."""

import json
import shutil
from typing import Any, NamedTuple

import trio

from tests.did_not_run import did_not_run
from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2

__all__ = ["Answer", "as_root", "brokerd", "curl", "folder", "needs_curl", "other_user", "raw", "serving", "with_http"]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def with_http(brokerd: Brokerd, serving: Serving, **settings: Any) -> OAuth2:
    """Started, with HTTP and the grant "app"."""
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, http=True, **settings)
    await brokerd.start()
    return provider


async def curl(brokerd: Brokerd, path: str, *options: str, data: bytes | None = None, user: Any = None) -> Answer:
    """The real curl."""
    command = [
        "curl",
        "-sS",
        "-i",
        "--path-as-is",
        "--unix-socket",
        str(brokerd.http_socket),
        *options,
        f"http://brokerd{path}",
    ]
    if data is not None:
        command[1:1] = ["--data-binary", "@-"]
    ids = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": ()}
    needs_curl()
    done = await trio.run_process(
        command, stdin=data or b"", capture_stdout=True, capture_stderr=True, check=False, **ids
    )
    assert done.returncode == 0, done.stderr.decode()
    return parsed(done.stdout)


def needs_curl() -> None:
    if shutil.which("curl") is None:
        did_not_run("HTTP WITH CURL", "curl is not installed")


def parsed(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


async def raw(brokerd: Brokerd, data: bytes) -> bytes:
    """All that comes back when these bytes are sent, until brokerd ends the connection."""
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(data)
        found = bytearray()
        with trio.fail_after(20):
            async for piece in stream:
                found += piece
        return bytes(found)
