# Bad input costs its sender only (law 13): an error or a closed connection for him, no delay for anybody else.
from __future__ import annotations

import contextlib
import resource
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
import trio
from brokerd_client.wire import pack_request

from tests.scenario.daemon.callers import Caller
from tests.scenario.daemon.harness import FIVE, TICK, Brokerd, Serving, at, until
from tests.servers import OAuth2

LONGEST_WAIT = 1.0  # seconds that a neighbour's get may take: a hundred times what it does take on a busy machine
UNFINISHED = 10.0  # seconds that brokerd waits for the rest of a message
IDLE = 500
TOO_LARGE = 64 * 1024 + 1  # bytes


@pytest.fixture
async def busy(brokerd: Brokerd, serving: Serving) -> Brokerd:
    """A brokerd with a living token."""
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    return brokerd


@contextlib.asynccontextmanager
async def nobody_waits(brokerd: Brokerd) -> AsyncIterator[None]:
    """All the while the block lasts a neighbour fetches his token without delay, on old and new connections."""
    fetched = 0

    async def fetch(caller: Caller) -> None:
        nonlocal fetched
        while True:
            with trio.fail_after(LONGEST_WAIT):
                await caller.call("get", grant="app")
                await brokerd.get("app")
            fetched += 1
            await trio.sleep(TICK)

    async with brokerd.caller() as caller, trio.open_nursery() as nursery:
        nursery.start_soon(fetch, caller)
        yield
        seen = fetched
        await until(lambda: fetched > seen)
        nursery.cancel_scope.cancel()


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"


GET = msgpack.packb([0, 1, "get", [{"grant": "app"}]])
MALFORMED = {
    "no MessagePack": b"\xc1" * 20,
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "a map": msgpack.packb({"method": "get"}),
    "three items": msgpack.packb([0, 1, "get"]),
    "a response": msgpack.packb([1, 1, None, {}]),
    "a notification": msgpack.packb([2, "get", [{"grant": "app"}]]),
    "an id below zero": msgpack.packb([0, -1, "get", [{"grant": "app"}]]),
    "an id beyond 32 bits": msgpack.packb([0, 2**32, "get", [{"grant": "app"}]]),
    "true for an id": msgpack.packb([0, True, "get", [{"grant": "app"}]]),
    "a number for a method": msgpack.packb([0, 1, 7, [{}]]),
    "bin": msgpack.packb([0, 1, "get", [{"grant": b"app"}]]),
    "an extension type": msgpack.packb([0, 1, "get", [{"grant": msgpack.ExtType(5, b"x")}]]),
    "a timestamp": bytes.fromhex("9400 01 a3676574 91 81 a56772616e74 d6ff 00000000".replace(" ", "")),
    "not UTF-8": b"\x94\x00\x01\xa3get\x91\x81\xa5grant\xa2\xff\xfe",
    "a key that is a number": msgpack.packb([0, 1, "get", [{1: "app"}]]),
    "nine levels": nested(9),
    "a thousand levels": nested(1000),
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "a text of four billion": b"\xdb\xff\xff\xff\xff" + b"x" * TOO_LARGE,
    "one byte too many": msgpack.packb([0, 1, "get", [{"grant": "x" * TOO_LARGE}]]),
    "1 MiB": msgpack.packb([0, 1, "get", [{"grant": "x" * 2**20}]]),
    "an endless array": b"\xdd\x00\x10\x00\x00" + b"\xc0" * TOO_LARGE,
}


async def test_what_is_no_message_is_answered_with_an_error_and_the_connection_is_closed(busy: Brokerd) -> None:
    async with nobody_waits(busy):
        for what, data in MALFORMED.items():
            async with busy.caller() as caller:
                with contextlib.suppress(trio.BrokenResourceError):  # it may close while we are still sending
                    await caller.stream.send_all(data)
                with trio.fail_after(5):
                    try:
                        error, _ = await caller.answer(None)
                        assert error is not None
                        assert error["code"] == "bad_request", what
                        assert error["message"].startswith("expected "), what
                    except trio.BrokenResourceError:
                        assert len(data) > TOO_LARGE, f"{what}: closed without a word"
                    await caller.closed()


async def test_a_bad_message_does_not_spoil_the_good_ones_before_it(busy: Brokerd) -> None:
    async with busy.caller() as caller:
        await caller.stream.send_all(GET + b"\xc1" + GET)
        error, token = await caller.answer(1)
        assert (error, token["grant"]) == (None, "app")
        error, _ = await caller.answer(None)
        assert error is not None
        await caller.closed()


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown method": ("fetch", {}, "unknown method 'fetch'; known: hello, get"),
    "an unknown parameter": (
        "get",
        {"grant": "app", "mintttl": 5},
        "unknown parameter 'mintttl'; known: grant, min_ttl",
    ),
    "a missing one": ("get", {}, "the parameter grant is required and missing"),
    "a name that is a number": ("get", {"grant": 7}, "get: grant: expected text"),
    "a negative wait": ("get", {"grant": "app", "wait": -1}, "expected a number of seconds, 0 or more"),
    "no number": ("get", {"grant": "app", "min_ttl": float("nan")}, "expected a number of seconds"),
    "for ever": ("get", {"grant": "app", "wait": float("inf")}, "expected a number of seconds"),
    "too long a wait": ("get", {"grant": "app", "wait": 61}, "at most 60 seconds"),
    "true for a number": ("get", {"grant": "app", "wait": True}, "expected a number of seconds"),
    "too long a life": ("get", {"grant": "app", "min_ttl": 3000}, "min_ttl: expected at most 1800 s"),
    "too many grants": ("get_many", {"grants": ["app"] * 65}, "at most 64 names"),
    "a text for an array": ("watch", {"grants": "app"}, "expected an array of grant names"),
    "a scope of another kind": ("get", {"grant": "app", "scope": "x"}, "scope: expected"),
    "an empty refresh token": (
        "import",
        {"grant": "app", "refresh_token": ""},
        "expected text that is not empty",
    ),
    "a user's name with a NUL": ("explain", {"grant": "app", "user": "\0"}, "this machine has no user '\\x00'"),
    "a user's name with a line break": ("explain", {"grant": "app", "user": "root\n"}, "this machine has no user"),
    "a user's name that is too long": ("explain", {"grant": "app", "user": "x" * 60_000}, "this machine has no user"),
    "a process with too high a number": ("explain", {"grant": "app", "pid": 2**22}, "the number of a process"),
    "a process beyond 64 bits": ("explain", {"grant": "app", "pid": 2**64 - 1}, "the number of a process"),
    "a life beyond all numbers": ("get", {"grant": "app", "min_ttl": 2**64 - 1}, "min_ttl: expected at most 1800 s"),
    "a place beyond all files": ("backup", {"offset": -1}, "a whole number, 0 or more"),
    "a hello with something": ("hello", {"version": 1}, "unknown parameter 'version'; known: request_id"),
}


async def test_a_wrong_request_is_answered_and_the_connection_goes_on(busy: Brokerd) -> None:
    async with busy.caller() as caller:
        for what, (method, params, words) in WRONG.items():
            error, _ = await caller.answer(await caller.send(method, **params))
            assert error is not None, what
            assert error["code"] == "bad_request", what
            assert words in error["message"], what
        await caller.stream.send_all(msgpack.packb([0, 900, "get", ["app"]]))
        error, _ = await caller.answer(900)
        assert error is not None
        assert "an array that holds one map" in error["message"]
        assert (await caller.call("get", grant="app"))["grant"] == "app"


@pytest.mark.slow
async def test_the_rest_of_a_message_is_waited_for_ten_seconds_and_nobody_else_waits(busy: Brokerd) -> None:
    async with nobody_waits(busy), busy.caller() as slow, busy.caller() as silent, busy.caller() as steady:
        start = trio.current_time()
        await slow.stream.send_all(GET[:5])
        await silent.stream.send_all(GET[:1])

        async def dribble() -> None:
            for byte in GET[5:-1]:  # a byte now and then does not prolong it
                await trio.sleep(UNFINISHED / len(GET) - 0.01)
                with contextlib.suppress(trio.BrokenResourceError):
                    await slow.stream.send_all(bytes((byte,)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            for caller in (silent, slow):
                with trio.fail_after(2 * UNFINISHED):
                    error, _ = await caller.answer(None)
                    await caller.closed()
                assert error is not None
                assert "expected the rest of a message within 10 s" in error["message"]
                assert UNFINISHED - 0.1 < trio.current_time() - start < UNFINISHED + 3
            nursery.cancel_scope.cancel()
        assert await steady.call("get", grant="app")  # idle, and without half a message: it may stay


async def test_five_hundred_idle_connections_delay_nobody(busy: Brokerd) -> None:
    async with nobody_waits(busy), contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(busy.caller()) for _ in range(IDLE)]
        for caller in idle[::50]:
            await caller.call("get", grant="app")
        assert await busy.get("app")
    await busy.said("ready")
    assert descriptors(busy) < 100 + IDLE
    await until(lambda: descriptors(busy) < 50)


async def test_clients_that_do_not_read_delay_nobody(busy: Brokerd) -> None:
    request = pack_request(1, "get", {"grant": "app"}) * 500
    async with nobody_waits(busy), contextlib.AsyncExitStack() as stack:
        before = memory(busy)
        for _ in range(3):
            caller = await stack.enter_async_context(busy.caller())
            with trio.move_on_after(0.2):  # until brokerd takes no more from this one
                while True:
                    await caller.stream.send_all(request)
        assert memory(busy) - before < 20 * 2**20, "it collects answers that nobody takes"
        watcher = await stack.enter_async_context(busy.caller())
        await watcher.call("watch", grants=["app"])
        await busy.call("refresh", grant="app")


async def test_too_many_requests_at_once_are_told_so_and_the_others_are_answered(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    with provider.hold("issue") as gate:
        await brokerd.start()
        async with brokerd.caller() as caller:
            limit = (await caller.call("hello"))["max_in_flight"]
            numbers = [await caller.send("get", grant="app") for _ in range(limit + 5)]
            await gate.reached()
            for number in numbers[limit:]:
                error, _ = await caller.answer(number)
                assert error is not None
                assert (error["code"], error["retry_after"]) == ("limit", 1.0)
            gate.release()
            for number in numbers[:limit]:
                error, token = await caller.answer(number)
                assert (error, token["grant"]) == (None, "app")
            assert await caller.call("get", grant="app")
    assert provider.count() == 1


async def test_when_descriptors_run_out_old_connections_are_served_and_new_ones_soon(busy: Brokerd) -> None:
    async with busy.caller() as old, contextlib.AsyncExitStack() as stack:
        await old.call("get", grant="app")
        room = descriptors(busy) + 10
        resource.prlimit(busy.pid, resource.RLIMIT_NOFILE, (room, 4096))
        for _ in range(room):
            await stack.enter_async_context(busy.caller())
        await busy.said("cannot accept connections")
        with trio.fail_after(LONGEST_WAIT):
            await old.call("get", grant="app")
        await stack.aclose()
        with trio.fail_after(LONGEST_WAIT):
            assert await busy.get("app")


def descriptors(brokerd: Brokerd) -> int:
    return len(list(brokerd.proc("fd").iterdir()))


def memory(brokerd: Brokerd) -> int:
    """Resident, in bytes (proc(5), statm)."""
    return int(brokerd.proc("statm").read_text().split()[1]) * resource.getpagesize()
