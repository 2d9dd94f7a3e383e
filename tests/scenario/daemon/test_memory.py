# What callers may cost in memory: a request is a few bytes, and what it makes the daemon hold is bounded too.
from __future__ import annotations

import contextlib
import re

import pytest
import trio
from brokerd_client.wire import MAX_MESSAGE, pack_request

from brokerd.core.access.admission import Limits
from brokerd.server.server import UNREAD
from tests.forked import ROOT
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, every, until

GRANTS = 600  # whose status is an answer of some hundred kilobytes
REQUESTS = 120  # of a reader who takes nothing; fewer than may be in flight
CONNECTIONS = 2_500  # that come and go
LITTLE = 12.0  # MB; both tests need more than twice that where nothing is bounded


async def test_answers_that_nobody_reads_are_not_made(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(60.0)
    sleeping = {f"grant-{number}": {**FIVE["oauth2"], "on_demand": True} for number in range(GRANTS)}
    brokerd.configure(sleeping, every(fleet.by_name))
    await brokerd.start()
    await brokerd.call("status")
    before = memory(brokerd)
    async with brokerd.caller() as caller:
        await caller.stream.send_all(b"".join(pack_request(number, "status", {}) for number in range(REQUESTS)))
        await idle(brokerd)
        assert memory(brokerd) - before < LITTLE
        for number in range(3):  # who begins to read gets them
            error, result = await caller.answer(number)
            assert error is None
            assert len(result["grants"]) == GRANTS


UNFINISHED = {
    "arrays that announce 1,024 items, within each other": b"\xdc\x04\x00" * 1_020,
    "the most that may be announced": (b"\x94\x00\x01\xa1x" + b"\xdc\x03\xf0" * 4 + b"\xc0" * 3_060)[:3_060],
    "maps": (b"\x94\x00\x01\xa1x\x91" + b"\xde\x01\xf0\xa1k" * 4 + b"\x80\xa1k" * 1_020)[:3_060],
}
ANNOUNCING = 150  # connections


@pytest.mark.parametrize("said", UNFINISHED.values(), ids=UNFINISHED)
async def test_an_unfinished_message_costs_what_came_of_it_and_not_what_it_announces(
    brokerd: Brokerd, serving: Serving, said: bytes
) -> None:
    fleet = await serving.all(60.0)
    brokerd.configure({"ix": FIVE["ix"]}, every(fleet.by_name))
    await brokerd.start()
    await brokerd.get("ix")
    before = memory(brokerd)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(ANNOUNCING):
            caller = await stack.enter_async_context(brokerd.caller())
            await caller.stream.send_all(said)
        await idle(brokerd)
        assert memory(brokerd) - before < LITTLE
        assert await brokerd.get("ix")


async def test_connections_that_have_ended_leave_nothing_behind(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(60.0)
    brokerd.configure({"ix": FIVE["ix"]}, every(fleet.by_name))
    await brokerd.start()
    await brokerd.get("ix")
    before = memory(brokerd)
    for _ in range(CONNECTIONS // 100):
        streams = [await trio.open_unix_socket(brokerd.socket) for _ in range(100)]
        await brokerd.call("hello")
        for stream in streams:
            await trio.aclose_forcefully(stream)
    assert memory(brokerd) - before < LITTLE


@pytest.mark.parametrize("unit", ["brokerd.service", "user/brokerd.service"])
def test_the_units_leave_room_for_what_callers_may_take(unit: str) -> None:
    text = (ROOT / "brokerd/systemd" / unit).read_text()
    said = dict(re.findall(r"^(Memory(?:High|Max))=(\d+[MG])$", text, re.MULTILINE))
    high, most = (int(said[name][:-1]) << {"M": 20, "G": 30}[said[name][-1]] for name in ("MemoryHigh", "MemoryMax"))
    grants, connections = (
        (150 << 20, Limits().connections) if "/" not in unit else (60 << 20, Limits().connections // 2)
    )
    assert grants + connections * (MAX_MESSAGE + 4 * UNREAD) < high < most


def memory(brokerd: Brokerd) -> float:
    """MB resident now."""
    lines = brokerd.proc("status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def idle(brokerd: Brokerd) -> None:
    """Wait until it computes no more."""
    seen: list[str] = []

    def computed() -> bool:
        fields = brokerd.proc("stat").read_text().rpartition(")")[2].split()
        seen.append(" ".join(fields[11:13]))  # utime and stime (proc(5)), in hundredths of a second
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    await until(computed, within=60.0)
