# Tokens of 256 KiB with 64 KiB of fields, everywhere: from the provider through the store to callers of both sockets,
# and back as refused tokens and imported refresh tokens.
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
from brokerd_client import Broker
from brokerd_client.wire import pack_request

from brokerd.core.access.admission import UNREAD_MOST
from brokerd.dialects.answer_values import LONGEST_TOKEN
from tests import forked
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import CLIENT, FIVE, IMPORTED, Brokerd, Serving, at
from tests.scenario.daemon.test_memory import memory
from tests.scenario.http.conftest import parsed, raw
from tests.servers import OAuth2
from tests.servers.oauth2 import Settings
from tests.servers.tokens import Token

T = TypeVar("T")
NAMES = ("instance_url", "id_token")


class Long(OAuth2):
    """Each token has exactly 256 KiB, and its fields have nearly 64 KiB."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings(further=NAMES))
        add = self.ledger.add

        def padded(*arguments: Any, **more: Any) -> Token:
            value = f"test-only-long-{len(self.ledger.tokens)}-".ljust(LONGEST_TOKEN, "x")
            return add(*arguments, **{**more, "value": value})

        self.ledger.add = padded  # type: ignore[method-assign]

    @staticmethod
    def further(name: str, token: Token) -> str:
        return f"{name}-of-{token.id}-".ljust(32_000, "y")


def is_whole(provider: Long, found: dict[str, Any]) -> bool:
    value = found.get("value", found.get("access_token"))
    token = provider.ledger.find(value, "access")
    assert token is not None
    assert len(token.value) == LONGEST_TOKEN
    return found["fields"] == {name: provider.further(name, token) for name in NAMES}


async def start(brokerd: Brokerd, serving: Serving) -> Long:
    provider = await serving(Long())
    grants = {f"app{number}": {**FIVE["oauth2-password"], "fields": NAMES} for number in range(3)}
    brokerd.configure(grants, {"oauth2": at(provider)}, http=True)
    await brokerd.start()
    return provider


async def in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)


async def test_they_come_over_both_sockets_and_go_back_as_refused(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving)

    def over_messagepack() -> tuple[str, str]:
        with Broker(str(brokerd.socket)) as broker:
            first = broker.get("app0")
            again = broker.get("app0", refused=first.value)
            many = broker.get_many(["app0", "app1", "app2"])
            assert [len(each.value) for each in many.values()] == [LONGEST_TOKEN] * 3
            event = next(iter(broker.watch("app1")))
            assert len(event.value) == LONGEST_TOKEN
            assert len(again.fields["id_token"]) == 32_000
            return first.value, again.value

    first, again = await in_thread(over_messagepack)
    assert len({first, again}) == 2
    answer = parsed(await raw(brokerd, b"GET /v1/token/app0 HTTP/1.0\r\n\r\n"))
    assert answer.json["access_token"] == again
    assert is_whole(provider, answer.json)
    lines = parsed(await raw(brokerd, b"GET /v1/header/app0 HTTP/1.0\r\n\r\n"))
    assert lines.body == f"Authorization: Bearer {again}\n".encode()
    token = (await brokerd.get("app1")).encode()
    head = b"POST /v1/refused/app1 HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (len(token) + 1)
    answer = parsed(await raw(brokerd, head + token + b"\n"))
    assert answer.status == 200
    assert answer.json["access_token"] != token.decode()
    assert is_whole(provider, answer.json)


async def test_they_are_stored_and_no_log_grows_by_them(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving)
    await brokerd.call("refresh", grant="app0")
    found = await brokerd.call("get", grant="app0")
    assert is_whole(provider, found)
    await brokerd.restart()
    assert await brokerd.call("get", grant="app0") == found
    done = await brokerd.call("revoke", grant="app0")
    assert (done["stored"], done["provider"]) == (True, "told")
    await brokerd.call("seal_audit")
    await brokerd.stop()
    files = brokerd.bytes_of_state()
    assert all(len(data) < 100_000 for name, data in files.items() if name.endswith(".jsonl"))
    assert len(brokerd.log) < 100_000


async def test_brokerctl_prints_them_and_imports_refresh_tokens_like_them(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Long(Settings(rotation=True)))
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    refresh = provider.issue_refresh(provider.ledger.family(), "somebody", CLIENT["client_id"], ("read",))

    def brokerctl(*words: str, text: str = "") -> str:
        done = forked.brokerctl("--socket", brokerd.socket, *words, input=text)
        assert done.returncode == 0, done.stderr[:500]
        return done.stdout

    await in_thread(lambda: brokerctl("import", "app", text=f"{refresh.value}\n"))
    value = (await in_thread(lambda: brokerctl("get", "app"))).removesuffix("\n")
    assert provider.ledger.find(value, "access") is not None
    assert provider.counts.renewed == 1
    copy = brokerd.folder / "backup"
    await in_thread(lambda: brokerctl("backup", str(copy)))  # of several pieces
    assert copy.stat().st_size > 512 * 1024
    other = await in_thread(lambda: brokerctl("get", "app", "--refused", text=f"{value}\n"))
    assert other.removesuffix("\n") not in ("", value)


async def test_parts_of_an_imported_token_belong_to_one_grant_and_are_bounded(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED, "other": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    refresh = provider.issue_refresh(provider.ledger.family(), "somebody", CLIENT["client_id"], ("read",)).value
    async with brokerd.caller() as caller:
        assert await caller.call("import_part", grant="other", part="x") == {"grant": "other", "characters": 1}
        assert (await caller.call("import_part", grant="app", part=refresh[:5]))["characters"] == 5
        await caller.call("import", grant="app", refresh_token=refresh[5:])
        assert await brokerd.get("app")
        for _ in range(5):
            await caller.call("import_part", grant="app", part="x" * 50_000)
        error, _ = await caller.answer(await caller.send("import_part", grant="app", part="é" * 7_000))
        assert error is not None
        assert "at most 262144 bytes in all" in error["message"]
        assert (await caller.call("import_part", grant="app", part="x"))["characters"] == 1


@pytest.mark.parametrize("name", ["app", "nothing"])
async def test_a_part_needs_the_right_to_import(
    brokerd: Brokerd, serving: Serving, other_user: User, name: str
) -> None:
    provider = await serving(OAuth2())
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}, "actions": ["get"]}
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)}, allow=[rule], socket_mode="0666")
    await brokerd.start()
    error = await other_user.call(brokerd, "import_part", grant=name, part="x")
    assert error["code"] == ("denied" if name == "app" else "unknown_grant")


async def test_a_static_token_of_256_kib_is_read_from_its_file(brokerd: Brokerd) -> None:
    value = "test-only-static-".ljust(LONGEST_TOKEN, "x")
    path = brokerd.write(f"{value}\n", "key1")
    brokerd.configure(
        {"app": {"provider": "p", "credentials": {"token": {"file": path}}}}, {"p": {"dialect": "static"}}
    )
    await brokerd.start()
    assert await brokerd.get("app") == value


UNREAD = """
import os, socket, sys, time
os.setgroups([]); os.setgid(60_900); os.setuid(60_900)
path, count, data = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
held = []
for number in range(count):
    held.append(socket.socket(socket.AF_UNIX))
    try:
        held[-1].connect(path)
        held[-1].sendall(data)
    except OSError:
        pass  # refused: this user has made too much work
    time.sleep(0.005)
os.write(1, b"sent")
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["get", "get_many", "http"])
async def test_what_a_user_leaves_unread_is_bounded_over_all_connections(
    brokerd: Brokerd, as_root: None, kind: str
) -> None:
    """One answer of 250 KiB is little. Those of some hundred connections would be more than brokerd's unit allows."""
    key = brokerd.write("x" * 250 * 1024, "key1")
    rule = {"grants": ["app"], "caller": {"uid": 60_900}, "actions": ["get"]}
    grant = {"provider": "p", "credentials": {"token": {"file": key}}}
    brokerd.configure({"app": grant}, {"p": {"dialect": "static"}}, allow=[rule], socket_mode="0666", http=True)
    await brokerd.start()
    assert len(await brokerd.get("app")) == 250 * 1024
    before = memory(brokerd)
    data, count = {
        "get": (b"".join(pack_request(number, "get", {"grant": "app"}) for number in range(8)), 120),
        "get_many": (pack_request(1, "get_many", {"grants": ["app"] * 64}), 15),
        "http": (b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\n\r\n", 400),
    }[kind]
    path = brokerd.http_socket if kind == "http" else brokerd.socket
    command = [sys.executable, "-c", UNREAD, str(path), str(count), data.hex()]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.receive_some() == b"sent"
        for _ in range(50):  # brokerd answers what was sent between these
            assert len(await brokerd.get("app")) == 250 * 1024
            assert memory(brokerd) - before < 2 * UNREAD_MOST / 1e6
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()
        nursery.cancel_scope.cancel()


async def test_a_request_that_comes_while_an_answer_leaves_is_answered_too(brokerd: Brokerd, serving: Serving) -> None:
    """Both are answered by a task of their own, and the first answer is larger than what the kernel holds."""
    await start(brokerd, serving)
    token = (await brokerd.get("app0")).encode()
    first = b"POST /v1/refused/app0 HTTP/1.1\r\nHost: brokerd\r\nContent-Length: %d\r\n\r\n" % len(token) + token
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(first)
        await trio.lowlevel.wait_readable(stream.socket)
        await stream.send_all(b"GET /v1/status HTTP/1.1\r\nHost: brokerd\r\n\r\n")
        for _ in range(3):
            await brokerd.call("status")  # brokerd has read it meanwhile
        got = b""
        with trio.fail_after(10):
            while got.count(b"HTTP/1.1 ") < 2 or not got.rstrip().endswith(b"}"):
                got += await stream.receive_some()
    assert got.count(b"HTTP/1.1 200") == 2, got[-300:]
