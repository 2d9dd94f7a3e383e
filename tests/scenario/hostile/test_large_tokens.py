# Access tokens of 200 KiB, from the provider to an application that says that its API refused one: more than a request
# holds, so their SHA-256 is sent.
from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import trio
from brokerd_client import Broker, on_asyncio, on_trio

from tests import forked
from tests.scenario.daemon.harness import Brokerd
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.faults import say
from tests.scenario.hostile.servers import Endpoint, http

SIZE = 200 * 1024  # bytes
Another = Callable[[Brokerd, str], Awaitable[str]]


class Large(Endpoint):
    def secret(self, kind: str, number: int) -> str:
        return super().secret(kind, number) + "x" * SIZE * (kind == "access")


@pytest.fixture
async def endpoint(brokerd: Brokerd, listening: Listening) -> Endpoint:
    """Its first token is served."""
    endpoint = await listening(Large("idp"))
    brokerd.configure({"app": endpoint.grant()}, {"idp": endpoint.table()})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=endpoint.refresh_token)
    assert await brokerd.get("app") == endpoint.access_token
    return endpoint


async def blocking(brokerd: Brokerd, token: str) -> str:
    def get() -> str:
        with Broker(brokerd.socket) as broker:
            return broker.get("app", refused=token).value

    return await trio.to_thread.run_sync(get)


async def with_trio(brokerd: Brokerd, token: str) -> str:
    async with on_trio.Broker(brokerd.socket) as broker:
        return (await broker.get("app", refused=token)).value


async def with_asyncio(brokerd: Brokerd, token: str) -> str:
    async def get() -> str:
        async with on_asyncio.Broker(brokerd.socket) as broker:
            return (await broker.get("app", refused=token)).value

    return await trio.to_thread.run_sync(asyncio.run, get())


async def brokerctl(brokerd: Brokerd, token: str) -> str:
    words = ("--socket", brokerd.socket, "get", "app", "--refused")
    done = await trio.to_thread.run_sync(lambda: forked.brokerctl(*words, input=f"{token}\n"))
    done.check_returncode()
    return str(done.stdout).removesuffix("\n")


@pytest.mark.parametrize("another", [blocking, with_trio, with_asyncio, brokerctl])
async def test_another_token_than_a_large_one_that_an_api_refused_is_served(
    brokerd: Brokerd, endpoint: Endpoint, another: Another
) -> None:
    refused = endpoint.access_token
    assert await another(brokerd, refused) == endpoint.access_token != refused
    assert endpoint.renewed == 2
    assert await another(brokerd, refused) == endpoint.access_token, "it was replaced already: nobody asks the provider"
    assert endpoint.renewed == 2


async def test_what_is_no_sha256_is_a_bad_request_and_so_are_both(brokerd: Brokerd, endpoint: Endpoint) -> None:
    digest = hashlib.sha256(b"another").hexdigest()
    assert await brokerd.get("app", refused_sha256=digest) == endpoint.access_token
    for wrong in (digest[1:], digest.upper(), 1, None):
        error = await brokerd.error("get", grant="app", refused_sha256=wrong)
        assert (error["code"], "64 hexadecimal digits" in error["message"]) == ("bad_request", True)
    error = await brokerd.error("get", grant="app", refused="another", refused_sha256=digest)
    assert (error["code"], "found both" in error["message"]) == ("bad_request", True)
    assert endpoint.renewed == 1


async def test_a_refusal_of_a_large_refresh_token_keeps_nobody_waiting(brokerd: Brokerd, listening: Listening) -> None:
    endpoint, other = await listening(Endpoint("idp")), await listening(Endpoint("other"))
    grants = {"app": endpoint.grant(), "other": other.grant()}
    brokerd.configure(grants, {"idp": endpoint.table(), "other": other.table()})
    await brokerd.start()
    await brokerd.call("import", grant="other", refresh_token=other.refresh_token)
    assert await brokerd.get("other") == other.access_token
    endpoint.fault = say(http(400, b'{"error": "server_error", "error_description": "no"}'))
    async with brokerd.caller() as caller:
        for _ in range(6):
            await caller.call("import_part", grant="app", part='test"only%' * 4_000)
        await caller.call("import", grant="app", refresh_token="end")
        longest, begun = 0.0, trio.current_time()
        while trio.current_time() < begun + 4:
            before = trio.current_time()
            assert await brokerd.get("other") == other.access_token
            longest = max(longest, trio.current_time() - before)
            await trio.sleep(0.02)
    assert endpoint.met > 0
    assert longest < 1.0
