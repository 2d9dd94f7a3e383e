# Shared tokens of a real daemon: what they say while a grant lives, and that nothing is left of a token that may not be
# read any more (docs/shared-token.md).
from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import trio
from brokerd_client import Broker, on_asyncio, on_trio
from brokerd_client.errors import BadRequest, Revoked, Unavailable
from brokerd_client.messages import Token
from brokerd_client.shared_token import CLOSED, NONE, TOKEN, SharedTokenReader, _Connection, _mapped
from brokerd_client.wire import Reader, pack_request

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, until
from tests.servers import OAuth2
from tests.servers.oauth2 import Settings

LIFE = 3  # seconds of a short token


@contextlib.contextmanager
def shared(brokerd: Brokerd, grant: str = "app") -> Iterator[SharedTokenReader]:
    """A shared token of this process."""
    connection = _Connection(str(brokerd.socket))
    yield connection.share(grant)
    connection.close()


async def begin(brokerd: Brokerd, serving: Serving, **settings: object) -> OAuth2:
    provider = await serving(OAuth2(Settings(**settings)))  # type: ignore[arg-type]
    brokerd.configure({"app": FIVE["oauth2"], "other": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    for grant in ("app", "other"):
        await brokerd.get(grant)
    return provider


def value_of(reader: SharedTokenReader) -> str | None:
    token = reader.read()
    return None if token is None else token.value


def state_of(reader: SharedTokenReader) -> int:
    return reader._look().state


def of_audit(brokerd: Brokerd) -> list[dict[str, object]]:
    lines = [
        json.loads(line) for path in brokerd.state.rglob("audit-*.jsonl") for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line.get("event") == "share"]


async def holds_nothing(reader: SharedTokenReader, *values: str) -> None:
    """It is closed, and no byte of a token is in its memory."""
    await until(lambda: state_of(reader) == CLOSED)
    assert reader.read() is None
    assert [value for value in values if value.encode() in reader._memory[:]] == []
    assert not any(reader._memory[76:])


async def test_it_says_what_get_says(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    found = await brokerd.call("get", grant="app")
    with shared(brokerd) as reader:
        token = reader.read()
        assert token is not None
        assert (token.value, token.token_type, token.grant) == (found["value"], found["token_type"], "app")
        assert token.header == {"Authorization": f"Bearer {found['value']}"}
        assert (token.fields, token.scope) == ({}, None)
        assert token.expires_at == pytest.approx(found["expires_at"], abs=0.1)
        assert (await brokerd.status("app"))["shared"] == 1
        assert (await brokerd.status("other"))["shared"] == 0
        metrics = (await brokerd.call("metrics"))["text"]
        assert "brokerd_shared_tokens 1\n" in metrics
        assert "brokerd_shared_token_writes_total 1\n" in metrics
    await until(partial(is_shared_by, brokerd, 0))


async def is_shared_by(brokerd: Brokerd, number: int) -> bool:
    return bool((await brokerd.status("app"))["shared"] == number)


async def test_header_form_and_fields_are_in_it(brokerd: Brokerd, serving: Serving) -> None:
    secret = brokerd.write("token-of-a-static-grant", "static-token")
    more = brokerd.write("a-field-of-it", "static-id")
    credentials = {"token": {"file": secret}, "key_id": {"file": more}}
    brokerd.configure({"app": {"provider": "own", "credentials": credentials}}, {"own": {"dialect": "static"}})
    await brokerd.start()
    found = await brokerd.call("get", grant="app")
    with shared(brokerd) as reader:
        token = reader.read()
        assert token is not None
        assert (token.value, token.fields, token.expires_at) == (found["value"], found["fields"], None)
        assert reader.read(min_ttl=1e6) is not None, "it never expires"


async def test_a_renewal_is_in_it_and_both_tokens_are_in_the_audit_log(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with shared(brokerd) as reader:
        first = value_of(reader)
        await brokerd.call("refresh", grant="app")
        await until(lambda: value_of(reader) not in (first, None))
        assert value_of(reader) == await brokerd.get("app")
    await until(partial(is_shared_by, brokerd, 0))
    await brokerd.call("seal_audit")
    *served, ended = of_audit(brokerd)
    assert [line["outcome"] for line in served] == ["served", "served"]
    assert served[0]["token"] != served[1]["token"]
    assert (ended["outcome"], ended["reason"]) == ("ended", "the connection has ended")
    assert float(str(ended["from"])) <= float(str(served[1]["time"])) <= float(str(ended["to"]))
    assert served[0]["who"] == ended["who"]


async def test_a_revocation_closes_it_before_it_is_stored(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with shared(brokerd) as reader, shared(brokerd, "other") as other:
        value = value_of(reader) or ""
        await brokerd.call("revoke", grant="app")
        await holds_nothing(reader, value)
        assert value_of(other) == await brokerd.get("other")
        with pytest.raises(Revoked), shared(brokerd):
            pass


async def test_lock_closes_it(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with shared(brokerd) as reader:
        value = value_of(reader) or ""
        await brokerd.call("lock")
        await holds_nothing(reader, value)
        await brokerd.call("unlock")
        assert state_of(reader) == CLOSED


async def test_a_grant_that_leaves_the_configuration_closes_it(brokerd: Brokerd, serving: Serving) -> None:
    provider = await begin(brokerd, serving)
    with shared(brokerd) as reader, shared(brokerd, "other") as other:
        value = value_of(reader) or ""
        brokerd.configure({"other": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
        await brokerd.call("reload")
        await holds_nothing(reader, value)
        assert state_of(other) == TOKEN


async def test_an_expired_token_is_not_read_and_goes(brokerd: Brokerd, serving: Serving) -> None:
    provider = await begin(brokerd, serving, access_lifetime=LIFE)
    with shared(brokerd) as reader:
        provider.down = True
        await until(lambda: value_of(reader) is None)
        await until(lambda: state_of(reader) == NONE)
        assert not any(reader._memory[76:])
        provider.down = False
        await brokerd.call("refresh", grant="app")
        await until(lambda: value_of(reader) is not None)


async def test_a_stop_closes_it(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with shared(brokerd) as reader:
        value = value_of(reader) or ""
        await brokerd.stop()
        await holds_nothing(reader, value)


async def test_who_only_reads_does_not_believe_a_dead_daemon(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with shared(brokerd) as reader:
        assert value_of(reader) is not None
        await brokerd.kill()
        await until(lambda: value_of(reader) is None)
        assert (state_of(reader), reader.is_over) == (TOKEN, True), "nobody was there to overwrite it"


async def test_each_descriptor_comes_with_its_answer(brokerd: Brokerd, serving: Serving) -> None:
    """Other answers go before, between and after, in one piece."""
    await begin(brokerd, serving)
    asked = [("get", "app"), ("share", "app"), ("get", "app"), ("share", "other"), ("share", "app"), ("get", "other")]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(brokerd.socket))
        sock.sendall(b"".join(pack_request(at, method, {"grant": name}) for at, (method, name) in enumerate(asked)))
        reader, found, tokens = Reader(), dict[int, object](), list[Token | None]()
        while len(found) < len(asked):
            data, descriptors, _, _ = socket.recv_fds(sock, 65_536, 8)
            assert len(descriptors) <= 1, "the kernel ends what is received at the next descriptor"
            reader.feed(data)
            answers = [*reader]
            for _, number, error, result in answers:
                assert error is None
                found[number] = result
            if descriptors:
                assert [asked[number][0] for _, number, _, _ in answers].count("share") == 1
                tokens.append(SharedTokenReader(_mapped(descriptors[0]), "x").read())
                os.close(descriptors[0])
    first, other, again = tokens
    assert first is None, "the connection asked for it again"
    assert other is not None
    assert again is not None
    assert other.value == await brokerd.get("other")
    assert again.value == await brokerd.get("app")


async def test_who_does_not_take_the_descriptor_leaves_none_behind(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    await brokerd.get("app")
    for _ in range(3):
        async with brokerd.caller() as caller:
            assert (await caller.call("share", grant="app"))["layout"] == 1
    await until(partial(is_shared_by, brokerd, 0))
    number = sum("brokerd-shared-token" in each for each in descriptors(brokerd))
    assert number <= 2 * 3, "the mapping has gone, its number waits"


async def test_who_asks_and_goes_at_once_harms_nobody(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    for number in range(200):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(brokerd.socket))
            sock.sendall(pack_request(1, "share", {"grant": ("app", "other")[number % 2]}))
    await until(partial(is_shared_by, brokerd, 0))
    with shared(brokerd) as reader:
        assert value_of(reader) is not None


async def test_a_token_that_is_too_long_is_not_shared(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving, access_padding=70_000)
    assert len(await brokerd.get("app")) > 65_536
    with pytest.raises(BadRequest, match="too long to be shared"), shared(brokerd):
        pass
    with Broker(brokerd.socket) as broker:
        assert [len(broker.get("app").value) > 65_536 for _ in range(5)] == [True] * 5


# -- the client library


async def test_the_library_reads_memory_after_three_gets(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with Broker(brokerd.socket) as broker, Broker(brokerd.socket, share=False) as without:
        for _ in range(3):
            assert (await brokerd.status("app"))["shared"] == 0
            value = broker.get("app").value
        assert (await brokerd.status("app"))["shared"] == 1
        before = await gets(brokerd)
        assert {broker.get("app").value for _ in range(100)} == {value}
        assert broker.get("app", min_ttl=1).value == value
        assert await gets(brokerd) == before
        changed = broker.get("app")
        changed.header["X"] = "y"
        assert broker.get("app").header == {"Authorization": f"Bearer {value}"}, "each get has dicts of its own"
        with pytest.raises(BadRequest, match="min_ttl"):
            broker.get("app", min_ttl=1e6)
        with contextlib.suppress(Unavailable):
            broker.get("app", refused=value, wait=0)
        assert await gets(brokerd) == before + 1
        broker.get("app")
        assert await gets(brokerd) == before + 2, "what was refused is not read in memory"
        await brokerd.call("revoke", grant="app")
        with pytest.raises(Revoked):
            broker.get("app")
        for _ in range(5):
            without.get("other")
        assert (await brokerd.status("other"))["shared"] == 0


async def gets(brokerd: Brokerd) -> float:
    text = (await brokerd.call("metrics"))["text"]
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("brokerd_gets_total{"))


async def test_the_library_outlives_restarts_of_the_daemon(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    with Broker(brokerd.socket) as broker:
        for ends in (brokerd.stop, brokerd.kill, brokerd.stop):
            for _ in range(5):
                broker.get("app")
            assert (await brokerd.status("app"))["shared"] == 1
            await ends()
            await brokerd.start()
            await brokerd.call("refresh", grant="app")
            value = await brokerd.get("app")
            await until(lambda value=value: broker.get("app").value == value)  # type: ignore[misc]


async def test_a_forked_child_reads_nothing_of_its_parent(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    await brokerd.get("app")
    program = """if True:
        import os, sys
        from brokerd_client import Broker
        broker = Broker(sys.argv[1])
        def shared():
            return broker._shared is not None and broker._shared.get("app", 0) is not None
        for _ in range(3):
            value = broker.get("app").value
        assert shared()
        for fork in (os.fork, os.fork):  # a child, and its child
            if child := fork():
                assert os.waitpid(child, 0)[1] == 0
                assert shared()
                os._exit(0)
            assert not shared()
            assert broker.get("app").value == value
            assert not shared()
            for _ in range(3):
                broker.get("app")
            assert shared()
            assert broker.call("status", grants=["app"])["grants"][0]["shared"] >= 2
    """
    command = [sys.executable, "-W", "error", "-c", program, str(brokerd.socket)]
    await trio.run_process(command, stderr=None)


async def test_many_threads_read_whole_tokens_while_it_is_renewed(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving, access_lifetime=LIFE)
    over = threading.Event()
    seen: list[set[str]] = []

    def reads(broker: Broker) -> None:
        values = set()
        while not over.is_set():
            token = broker.get("app")
            assert token.header == {"Authorization": f"Bearer {token.value}"}
            values.add(token.value)
        seen.append(values)

    served = {await brokerd.get("app")}
    with Broker(brokerd.socket) as broker:
        threads = [threading.Thread(target=reads, args=(broker,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2, 5):
            while len(served) < number:
                served.add(await brokerd.get("app"))
        over.set()
        for thread in threads:
            thread.join()
    assert len(seen) == len(threads)
    assert set().union(*seen) <= served
    assert len(set().union(*seen)) > 1


async def test_the_trio_client_reads_memory_too(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    async with on_trio.Broker(brokerd.socket) as broker:
        for _ in range(3):
            value = (await broker.get("app")).value
        await until(partial(is_shared_by, brokerd, 1))
        await until(lambda: broker._shared is not None and broker._shared.get("app", 0) is not None)
        before = await gets(brokerd)
        assert {(await broker.get("app")).value for _ in range(100)} == {value}
        assert await gets(brokerd) == before
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.get("app")
        assert scope.cancelled_caught, "each get is a checkpoint"
    await until(partial(is_shared_by, brokerd, 0))


ASYNCIO = """if True:
    import asyncio, sys
    from brokerd_client.on_asyncio import Broker
    async def main():
        async with Broker(sys.argv[1]) as broker:
            for _ in range(3):
                value = (await broker.get("app")).value
            while broker._shared is None or broker._shared.get("app", 0) is None:
                await asyncio.sleep(0.01)
            assert {(await broker.get("app")).value for _ in range(100)} == {value}
            assert (await broker.call("status", grants=["app"]))["grants"][0]["shared"] == 1
    asyncio.run(main(), debug=True)
"""


async def test_the_asyncio_client_reads_memory_too(brokerd: Brokerd, serving: Serving) -> None:
    await begin(brokerd, serving)
    assert on_asyncio.Broker.get is on_trio.Broker.get
    await trio.run_process([sys.executable, "-W", "error", "-c", ASYNCIO, str(brokerd.socket)], stderr=None)
    await until(partial(is_shared_by, brokerd, 0))


def test_what_the_library_needs_for_it_may_be_missing() -> None:
    """As on a kernel without MADV_WIPEONFORK, or another system."""
    program = """if True:
        import sys
        sys.modules["mmap"] = None
        from brokerd_client import Broker
        from brokerd_client.wire import Response
        broker = Broker("/nowhere")
        broker._answered = lambda request: Response(
            0, None, {"grant": "app", "value": "v", "token_type": "Bearer", "expires_at": None}
        )
        assert [broker.get("app").value for _ in range(5)] == ["v"] * 5
        assert broker._shared is None
    """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


def descriptors(brokerd: Brokerd) -> list[str]:
    """What each of its descriptors leads to."""
    found = []
    for each in brokerd.proc("fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed between the two looks
            found.append(str(each.readlink()))
    return found


async def test_a_memory_that_nobody_holds_any_more_is_given_back(brokerd: Brokerd, serving: Serving) -> None:
    """Also where nobody asks for another one."""
    await begin(brokerd, serving)

    def memories() -> int:
        return sum("brokerd-shared-token" in each for each in descriptors(brokerd))

    with shared(brokerd) as reader:
        held = [reader]
    del reader
    await until(lambda: state_of(held[0]) == CLOSED)
    assert memories() == 1, "this process has it mapped"
    held.clear()
    await until(lambda: not memories())
