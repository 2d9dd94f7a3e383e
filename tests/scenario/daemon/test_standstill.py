# A daemon that stands still, as in a suspend, while an answer comes that it must not lose (law 3).
from __future__ import annotations

import signal

import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2

LIMIT = 1.0  # seconds for an answer
STANDS_STILL = 1.5


async def test_an_answer_that_came_while_brokerd_stood_still_is_taken_though_its_time_is_over(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider, answer_timeout=LIMIT)})
    await brokerd.start()
    before = await brokerd.get("app")
    async with trio.open_nursery() as nursery:
        gate = provider.hold("refresh")
        nursery.start_soon(lambda: brokerd.call("refresh", grant="app"))
        await gate.reached()
        brokerd.signal(signal.SIGSTOP)
        gate.release()
        await trio.sleep(STANDS_STILL)
        brokerd.signal(signal.SIGCONT)
    assert await brokerd.get("app") != before
    assert (provider.counts.renewed, provider.counts.reused) == (1, 0)
