# One id for an exchange, from its caller to the provider, the log and the audit log.
from __future__ import annotations

import re
from functools import partial

import pytest
import trio

from tests.scenario.audit.logs import brokerctl, written
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, every
from tests.servers import OAuth2

MADE = re.compile(r"[0-9a-f]{16}")


def sent_to(provider: OAuth2) -> list[str | None]:
    return [entry.request.header("x-request-id") for entry in provider.requests]


async def started(brokerd: Brokerd, serving: Serving, **settings: object) -> OAuth2:
    provider = await serving(OAuth2())
    brokerd.configure({"app": {**FIVE["oauth2"], "on_demand": True}}, {"oauth2": at(provider, **settings)}, http=True)
    await brokerd.start()
    return provider


async def test_the_callers_id_is_everywhere(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    await brokerd.get("app", request_id="portal-17")
    assert sent_to(provider) == ["portal-17"]
    assert re.search(r"event=renewed .*request_id=portal-17", brokerd.log)
    line = await written(brokerd, event="renewed", request_id="portal-17")
    assert line["who"]["uid"] == 0
    _, said = brokerctl(brokerd, "tail", "--request-id", "portal-17")
    assert "request_id=portal-17" in said
    await brokerd.get("app", request_id="portal-18")
    assert provider.count() == 1, "a living token needs no exchange"


async def test_brokerd_makes_one_for_each_exchange(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    first, second = sent_to(provider)
    assert first is not None
    assert second is not None
    assert first != second
    assert MADE.fullmatch(first)
    assert MADE.fullmatch(second)
    for each in (first, second):
        await written(brokerd, event="renewed", request_id=each)


async def test_a_request_that_joins_an_exchange_is_told_apart(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    with provider.hold("issue") as gate:
        async with brokerd.caller() as caller, trio.open_nursery() as nursery:
            nursery.start_soon(partial(brokerd.get, "app", request_id="first"))
            await gate.reached()
            await caller.send("get", grant="app", request_id="second")
            await brokerd.said("exchange=first request_id=second")
            gate.release()
    assert sent_to(provider) == ["first"]


async def test_the_header_is_a_setting_of_the_provider(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving, request_id_header="X-Correlation-ID")
    await brokerd.get("app", request_id="one")
    assert sent_to(provider) == [None]
    assert provider.requests[-1].request.header("x-correlation-id") == "one"
    brokerd.configure({"app": {**FIVE["oauth2"]}}, {"oauth2": at(provider, request_id_header="")}, http=True)
    await brokerd.call("reload")
    await brokerd.call("refresh", grant="app", request_id="two")
    assert provider.requests[-1].request.header("x-correlation-id") is None
    await written(brokerd, event="renewed", request_id="two")


async def test_a_failure_and_the_providers_own_id_are_told(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    provider.fail_with(503, {"X-Ms-Request-Id": "6c7a4c5e-9d2b-4f57"}, times=None)
    error = await brokerd.error("get", grant="app", request_id="mine", wait=1)
    assert error["request_id"] == "mine"
    assert (await brokerd.error("get", grant="app", wait=0))["request_id"] == "mine", "whoever asks while it fails"
    (grant,) = (await brokerd.call("status", grants=["app"], history=True))["grants"]
    assert grant["history"][0]["request_id"] == "mine"
    line = await written(brokerd, event="renewal_failed", request_id="mine")
    assert line["provider_request_id"] == "6c7a4c5e-9d2b-4f57"


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 65, "a\nlevel=error", 7])
async def test_an_id_of_another_form_is_refused(brokerd: Brokerd, serving: Serving, wrong: object) -> None:
    provider = await started(brokerd, serving)
    error = await brokerd.error("get", grant="app", request_id=wrong)
    assert error["code"] == "bad_request"
    assert error["message"] == "get: request_id: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -"
    assert provider.count() == 0


async def test_every_recipe_can_carry_an_id(brokerd: Brokerd, serving: Serving) -> None:
    providers = await serving.all(600)
    grants = {name: {**table, "on_demand": True} for name, table in FIVE.items()}
    brokerd.configure(grants, every(providers.by_name))
    await brokerd.start()
    for name in grants:
        await brokerd.get(name, request_id=f"of-{name}")
    for name, table in grants.items():
        seen = [entry.request.header("x-request-id") for entry in providers.by_name[table["provider"]].requests]
        assert f"of-{name}" in seen
