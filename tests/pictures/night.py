# The real daemon on a clock of its own, which jumps to about what is due next as soon as nothing is under way: a night
# passes in a minute. It stops at each time of NIGHT_STOPS (seconds from NIGHT_BEGIN) and waits for a byte from the
# socket NIGHT_CONTROL. After the last stop, time goes on at its usual pace.
from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.daemon import main
from brokerd.edge.http.client import HttpClient

QUIET = 0.002  # seconds without any work, before the clock jumps
NEAR, FAR = 10.0, 600.0  # seconds of a jump; what is due within the shortest is a little late
clock = MockClock(rate=1.0)
under_way = 0


def counted(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """What may not be jumped over: exchanges, and work in threads."""

    @wraps(work)
    async def run(*arguments: Any, **options: Any) -> Any:
        global under_way
        under_way += 1
        try:
            return await work(*arguments, **options)
        finally:
            under_way -= 1

    return run


async def make_haste() -> None:
    begin = clock.current_time()
    async with await trio.open_unix_socket(os.environ["NIGHT_CONTROL"]) as control:
        for stop in map(float, os.environ["NIGHT_STOPS"].split(",")):
            while (left := begin + stop - clock.current_time()) > 0:
                await wait_all_tasks_blocked(QUIET)
                if under_way:
                    await trio.sleep(QUIET)
                    continue
                due = trio.lowlevel.current_statistics().seconds_to_next_deadline
                clock.jump(min(left, max(NEAR, min(due, FAR))))
            await control.send_all(b".")
            if not await control.receive_some():
                return


def run(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_haste)
            await work(*arguments)
            nursery.cancel_scope.cancel()

    real_run(both, clock=clock)


if __name__ == "__main__":
    born, wall = clock.current_time(), float(os.environ["NIGHT_BEGIN"])
    real_run, boot = trio.run, time.clock_gettime(time.CLOCK_BOOTTIME)
    time.time = lambda: wall + clock.current_time() - born
    time.clock_gettime = lambda _which: boot + clock.current_time() - born
    trio.run = run  # type: ignore[assignment]
    trio.to_thread.run_sync = counted(trio.to_thread.run_sync)  # type: ignore[assignment]
    HttpClient.send = counted(HttpClient.send)  # type: ignore[method-assign]
    main.main()
