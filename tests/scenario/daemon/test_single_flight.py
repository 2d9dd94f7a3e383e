# One exchange per grant, whoever and however many ask (law 1).
from __future__ import annotations

from typing import Any

import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, until
from tests.servers import OAuth2, oauth2

CALLERS = 100


async def test_a_hundred_callers_of_an_expired_grant_cause_one_request(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=1)))
    brokerd.configure({"app": {**FIVE["oauth2"], "on_demand": True}}, {"oauth2": at(provider)})
    await brokerd.start()
    first = await brokerd.get("app")
    await brokerd.until("app", lambda status: status["expires_at"] is None)
    crowd = Crowd(brokerd)
    with provider.hold("issue") as gate:
        async with trio.open_nursery() as nursery:
            await crowd.ask(nursery)
            await gate.reached()
            assert not crowd.answers
            gate.release()
    found = [token["value"] for error, token in crowd.answers if error is None]
    assert provider.count() == 2
    assert len(found) == CALLERS
    assert len(set(found)) == 1
    assert found[0] != first


async def test_a_token_that_ends_while_another_one_is_waited_for_is_waited_for_too(
    brokerd: Brokerd, serving: Serving
) -> None:
    short, slow = await serving(OAuth2(oauth2.Settings(access_lifetime=1))), await serving(OAuth2())
    brokerd.configure(
        {"short": FIVE["oauth2"], "slow": {**FIVE["oauth2"], "provider": "slow"}},
        {"oauth2": at(short), "slow": at(slow)},
    )
    with slow.hold("issue") as slow_gate:
        await brokerd.start()
        first = await brokerd.get("short")
        with short.hold("issue") as short_gate:
            async with brokerd.caller() as caller:
                number = await caller.send("get_many", grants=["short", "slow"], wait=60)
                await caller.call("hello")  # answered after the request before it was begun
                await short_gate.reached()
                await brokerd.until("short", lambda status: status["expires_at"] is None)
                slow_gate.release()
                await brokerd.get("slow")
                await caller.call("hello")
                short_gate.release()
                error, found = await caller.answer(number)
    assert error is None
    assert [each.keys() for each in found] == [{"token"}, {"token"}]
    assert found[0]["token"]["value"] != first


async def test_callers_who_go_away_do_not_stop_the_exchange(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    with provider.hold("issue") as gate:
        await brokerd.start()
        async with brokerd.caller() as first, brokerd.caller() as second:
            await first.send("get", grant="app")
            await second.send("get", grant="app", wait=60)
            await gate.reached()
        await brokerd.status("app")  # both have hung up, and brokerd has seen it
        gate.release()
    await brokerd.until("app", lambda status: status["state"] == "ready" and status["expires_at"] is not None)
    await brokerd.get("app", wait=0)
    assert provider.statuses() == [200]


async def test_a_failure_is_shared_as_well(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, {"Retry-After": "30"})
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    crowd = Crowd(brokerd)
    with provider.hold("issue") as gate:
        await brokerd.start()
        async with trio.open_nursery() as nursery:
            await crowd.ask(nursery)
            await gate.reached()
            gate.release()
    assert provider.count() == 1
    assert len(crowd.answers) == CALLERS
    for error, _ in crowd.answers:
        assert error is not None
        assert error["code"] == "unavailable"
        assert 29 <= error["retry_after"] <= 38  # what the provider asked for, and jitter


class Crowd:
    """A hundred callers, each on a connection of its own."""

    def __init__(self, brokerd: Brokerd) -> None:
        self.answers: list[tuple[Any, Any]] = []
        self._brokerd = brokerd
        self._waiting = 0

    async def ask(self, nursery: trio.Nursery) -> None:
        """Returns when brokerd has read the last one's request."""
        for _ in range(CALLERS):
            nursery.start_soon(self._ask)
        await until(lambda: self._waiting == CALLERS)

    async def _ask(self) -> None:
        async with self._brokerd.caller() as caller:
            number = await caller.send("get", grant="app")
            await caller.call("hello")  # answered after the request before it was begun
            self._waiting += 1
            self.answers.append(await caller.answer(number))
