# Calls in threads of which only so many run at the same time (edge/system/thread_limit.py).
from __future__ import annotations

import threading

import trio

from brokerd.edge.system.thread_limit import ThreadLimit


async def test_no_more_run_at_the_same_time_and_what_is_abandoned_keeps_its_place() -> None:
    limit, end, began = ThreadLimit(1), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        end.wait(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(limit.run, hang)
        while not began.is_set():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert limit.is_used
    with trio.move_on_after(0.01) as scope:
        await limit.run(lambda: None)
    assert scope.cancelled_caught
    end.set()
    assert await limit.run(lambda: 7) == 7


def test_what_a_run_abandoned_takes_no_place_in_the_next_one() -> None:
    limit, end = ThreadLimit(1), threading.Event()

    async def abandon() -> None:
        began = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limit.run, lambda: (began.set(), end.wait(10)))
            while not began.is_set():
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def use() -> int:
        with trio.fail_after(5):
            return await limit.run(lambda: 7)

    for _ in range(2):
        trio.run(abandon)
        assert trio.run(use) == 7
    end.set()
