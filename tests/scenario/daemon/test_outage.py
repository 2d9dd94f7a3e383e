# A provider that is down: its living tokens go on being served, its callers hear when to ask again, it is left alone as
# the backoff says, and nobody else notices (laws 5, 7, 12).
from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import trio

from brokerd.core.timing.breaker import THRESHOLD
from brokerd.telemetry.event_log import utc
from tests.scenario.daemon.callers import Api
from tests.scenario.daemon.harness import FIVE, TICK, Brokerd, Serving, at
from tests.servers import OAuth2, Treezor, oauth2, treezor

BACKOFF = (1.0, 2.0, 4.0)  # seconds after the first, second, third failure, before jitter lengthens them


async def test_an_outage_costs_its_own_grants_only_and_those_not_before_their_tokens_end(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    broken = await serving(OAuth2(oauth2.Settings(access_lifetime=3)))
    sound = await serving(Treezor(treezor.Settings(access_lifetime=2)))
    brokerd.configure({"app": FIVE["oauth2"], "other": FIVE["treezor"]}, {"oauth2": at(broken), "treezor": at(sound)})
    await brokerd.start()
    async with brokerd.caller() as caller, brokerd.caller() as neighbour:
        token = await caller.call("get", grant="app")
        await neighbour.call("get", grant="other")
        known = broken.ledger.find(token["value"])
        assert known is not None
        assert known.expires_at is not None
        assert known.expires_at - 0.2 < token["expires_at"] <= known.expires_at + 0.01
        broken.fail_with(503, times=None)
        unavailable, began = 0, time.time()
        while broken.count() < 1 + 3:  # the first issue, and three in vain
            error, found = await caller.answer(await caller.send("get", grant="app", wait=0))
            if error is None:
                assert found == token
                status, _ = await api.me(broken, found["value"])
                assert status == 200 or time.time() > token["expires_at"]
            else:
                unavailable += 1
                assert time.time() >= token["expires_at"] - 0.05, f"not served to its end: {error}"
                assert error["code"] == "unavailable"
                assert error["grant"] == "app"
                assert 1 <= error["retry_after"] <= 5 * 1.25
            other = await neighbour.call("get", grant="other", wait=0)
            status, _ = await api.me(sound, other["value"])
            assert status == 200
            await trio.sleep(TICK)
        assert unavailable > 10
        assert_left_alone(broken.times()[1:])
        found = await brokerd.until("app", lambda status: status["failures"] == 3)
        assert found["state"] == "retrying"
        assert "503" in found["last_error"]
        assert began < found["failing_since"] < time.time() - 1, "the first failure, not the last"
        broken.clear_faults()
        await brokerd.call("refresh", grant="app")
        assert (await api.me(broken, (await caller.call("get", grant="app", wait=0))["value"]))[0] == 200
        well = await brokerd.status("app")
        assert (well["failures"], well["failing_since"]) == (0, None)
    assert sound.counts.refused == 0
    assert (await brokerd.status("other"))["failures"] == 0


def assert_left_alone(times: list[float]) -> None:
    gaps = [after - before for before, after in itertools.pairwise(times)]
    for gap, least in zip(gaps, BACKOFF, strict=False):
        assert least <= gap + 0.02, gaps


async def test_since_when_and_what_to_do_are_the_same_before_and_after_a_restart_in_status_and_log(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": {**FIVE["oauth2"], "on_demand": True}}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    provider.down = True
    for _ in range(THRESHOLD):
        assert (await brokerd.error("refresh", grant="app"))["code"] == "unavailable"
    before = await brokerd.call("status", grants=["app"])
    since, advice = before["providers"][0]["failing_since"], before["grants"][0]["advice"]
    assert before["grants"][0]["failing_since"] == pytest.approx(since, abs=0.1)
    assert advice == "see what keeps this machine from the provider: brokerctl doctor; brokerd tries again by itself"
    for _ in range(2):
        await brokerd.restart()
        after = await brokerd.call("status", grants=["app"])
        assert after["providers"][0]["failing_since"] == pytest.approx(since, abs=0.1)
        assert after["providers"][0]["cause"] == "unreachable"
        assert after["grants"][0]["advice"] == advice
    said = len(brokerd.log)
    await brokerd.error("refresh", grant="app", wait=20)
    await brokerd.said("event=provider_down", times=2)
    line = next(line for line in brokerd.log[said:].splitlines() if "event=provider_down" in line)
    assert f"since={utc(since)}" in line
    assert f'remedy="{advice}"' in line


async def test_callers_hear_within_their_wait_and_those_who_can_wait_get_the_token(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, {"Retry-After": "2"})
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    start = trio.current_time()
    error = await brokerd.error("get", grant="app", wait=1)
    assert (error["code"], error["retry_after"] > 1) == ("unavailable", True)
    assert trio.current_time() - start < 1.5
    with provider.hold("issue"):  # and where the provider does not answer at all
        await trio.sleep(error["retry_after"])
        start = trio.current_time()
        error = await brokerd.error("get", grant="app", wait=0.5)
        assert error["code"] == "unavailable"
        assert 0.45 < trio.current_time() - start < 1.0
    assert await brokerd.get("app", wait=10)
    assert provider.count() == 2


async def test_a_provider_that_cannot_be_reached_uses_nothing_up(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=2)))
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    provider.down = True
    status = await brokerd.until("app", lambda status: status["failures"] == 2)
    assert (status["state"], status["interrupted"]) == ("retrying", None)
    assert "refused" in status["last_error"]
    error = await brokerd.error("get", grant="app", wait=0)
    assert error["code"] == "unavailable"
    provider.down = False
    await brokerd.call("refresh", grant="app")
    assert (await brokerd.status("app"))["state"] == "ready"
    assert provider.statuses() == [200, 200]
    assert provider.counts.issued == 1


async def test_after_failures_in_a_row_nobody_asks_a_dead_provider_not_even_after_a_restart(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, times=None)
    grants = {f"app{number}": FIVE["oauth2"] for number in range(8)}
    brokerd.configure(grants, {"oauth2": at(provider)})
    await brokerd.start()
    for found in await brokerd.call("get_many", grants=list(grants), wait=1):
        assert found["error"]["code"] == "unavailable"
    sent = provider.count()
    assert sent == len(grants)
    for grant in grants:
        error = await brokerd.error("get", grant=grant)
        assert error["code"] == "unavailable"
        assert error["retry_after"] > 10, "the whole provider is left alone by now"
    await brokerd.restart()
    for grant in grants:
        error = await brokerd.error("get", grant=grant)
        assert (error["code"], error["retry_after"] > 10) == ("unavailable", True)
    assert provider.count() == sent


KINDS: tuple[Any, ...] = ("html", "truncated", "not_json", "no_token", "oversized")


async def test_an_answer_that_is_not_the_providers_kills_nothing(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=3)))
    grants = dict.fromkeys((*KINDS, "proxy"), FIVE["oauth2-password"])
    brokerd.configure(grants, {"oauth2": at(provider, reuse_grace=60)})
    await brokerd.start()
    values = {kind: await brokerd.get(kind) for kind in grants}
    for kind in KINDS:
        provider.garbage(kind)
        assert (await brokerd.error("refresh", grant=kind, wait=0.5))["code"] == "unavailable"
    provider.fail_with(403, {"Content-Type": "text/html"}, "<h1>Blocked by policy")
    assert (await brokerd.error("refresh", grant="proxy", wait=0.5))["code"] == "unavailable"
    for kind in grants:
        status = await brokerd.status(kind)
        assert (status["state"], status["interrupted"] is not None) == ("retrying", True), kind
        assert await brokerd.get(kind, wait=0) == values[kind]
    for kind in grants:
        await brokerd.until(kind, lambda status: status["state"] == "ready" and status["renewals"] == 2)
    assert provider.counts.issued == len(grants)
    assert provider.counts.families_killed == 0


async def test_a_refresh_that_comes_too_soon_says_when_the_next_may_come(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=3600)))
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    error = await brokerd.error("refresh", grant="app")  # a third of a lifetime has to lie between the two (law 5)
    assert error["code"] == "unavailable"
    assert 1100 < error["retry_after"] <= 1200
    newer = await brokerd.get("app", refused=value)
    error = await brokerd.error("get", grant="app", refused=newer)
    assert (error["code"], error["retry_after"] > 1100) == ("unavailable", True)
    assert provider.count() == 2
