# Providers that answer a mebibyte of JSON for many grants at a time: what reading them costs holds up no get of another
# grant (law 13).
from __future__ import annotations

import json

import trio

from tests.scenario.daemon.harness import Brokerd
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.servers import Endpoint, http
from tests.unit.edge.http.servers import Peer

GRANTS = 60
TOO_LARGE = "x" * 270_000  # a token that nobody serves: each grant asks again
LARGE = json.dumps({"access_token": TOO_LARGE, "more": [{"a": "b" * 8, "c": number} for number in range(24_000)]})


async def test_gets_of_other_grants_are_answered_between_answers_of_a_mebibyte(
    brokerd: Brokerd, listening: Listening
) -> None:
    assert 700_000 < len(LARGE) + 200 < 1 << 20
    good, large = await listening(Endpoint("good")), await listening(Endpoint("large"))
    all_asked, answered = trio.Event(), 0

    async def once_all_have_asked(peer: Peer) -> None:
        """All answers leave together."""
        nonlocal answered
        await peer.request()
        if large.met == GRANTS:
            all_asked.set()
        await all_asked.wait()
        await peer.say(http(200, LARGE.encode()))
        answered += 1

    large.fault = once_all_have_asked
    names = [f"large-{number}" for number in range(GRANTS)]
    brokerd.configure(
        {"good": good.grant(), **{name: large.grant() for name in names}},
        {"good": good.table(), "large": large.table(concurrency=GRANTS)},
    )
    await brokerd.start()
    await brokerd.call("import", grant="good", refresh_token=good.refresh_token)
    assert await brokerd.get("good") == good.access_token
    seen: list[int] = []  # how many had been answered when each get was
    async with brokerd.caller() as caller, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(lambda name=name: brokerd.call("import", grant=name, refresh_token=large.refresh_token))
        await all_asked.wait()
        while answered < GRANTS:
            assert (await caller.call("get", grant="good", wait=0))["value"] == good.access_token
            seen.append(answered)
    # Had they all been read first, or in one piece, there would be two. How fine it is says how busy this process is,
    # which sends them all.
    assert len(set(seen)) > 4, "gets were answered between the answers, not before or behind them all"
