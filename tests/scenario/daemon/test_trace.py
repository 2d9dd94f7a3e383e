# brokerctl trace: one renewal followed step by step at the real daemon, without a byte of a secret; and who may
# follow it.
from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import trio

from tests.scenario.audit.logs import written
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import CONFIGURED_SECRETS, FIVE, SOON, Brokerd, Serving, at, every
from tests.servers import OAuth2

Steps = list[dict[str, Any]]


async def traced(brokerd: Brokerd, grant: str, **params: object) -> Steps:
    """Every step until the end."""
    async with brokerd.caller() as caller:
        await caller.call("trace", grant=grant, **params)
        found: Steps = []
        with trio.fail_after(SOON):
            while not found or found[-1]["step"] != "end":
                method, step = await caller.event()
                assert method == "trace"
                found.append(step)
        return found


async def started(brokerd: Brokerd, serving: Serving, **settings: Any) -> OAuth2:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)}, **settings)
    await brokerd.start()
    await brokerd.get("app")
    return provider


def names(steps: Steps) -> list[str]:
    return [step["step"] for step in steps]


async def test_a_renewal_is_followed_from_its_reason_to_its_record(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    steps = await traced(brokerd, "app", request_id="look-1")
    assert names(steps) == [
        *("begin", "credentials", "journal", "request", "lookup", "connect", "transfer", "transfer", "answer"),
        *("outcome", "ended", "end"),
    ]
    by = {step["step"]: step for step in reversed(steps)}
    assert "asks for a token with the refresh token, because a person asked for it" in by["begin"]["words"]
    assert {step["request_id"] for step in steps[:-1]} == {"look-1"}
    assert provider.requests[-1].request.header("x-request-id") == "look-1"
    sent = by["request"]
    assert (sent["method"], sent["url"]) == ("POST", provider.token_url)
    assert sent["fields"]["grant_type"] == "refresh_token"
    assert sent["fields"]["refresh_token"].startswith("(hidden, ")
    assert "X-Request-ID" in sent["headers"]
    answer = by["answer"]
    assert answer["status"] == 200
    assert answer["fields"]["token_type"] == "Bearer"
    assert answer["fields"]["expires_in"].isdigit()
    assert answer["fields"]["access_token"].startswith("(hidden, ")
    assert by["outcome"]["outcome"] == "issued"
    assert "requests that waited for it: 1" in by["ended"]["words"]
    moments = [step["ms"] for step in steps[:-1]]
    assert moments == sorted(moments)
    assert "error" not in steps[-1]
    assert (await written(brokerd, event="trace_begun", grant="app"))["who"]["uid"] == 0


async def test_a_failure_ends_the_trace_with_what_refresh_would_say(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    provider.down = True
    steps = await traced(brokerd, "app")
    assert "unanswered" in names(steps)
    assert steps[-1]["error"]["code"] == "unavailable"
    assert steps[-1]["error"]["request_id"] == steps[0]["request_id"]


async def test_with_wait_the_next_exchange_is_followed_and_none_is_begun(brokerd: Brokerd, serving: Serving) -> None:
    provider = await started(brokerd, serving)
    before = provider.count()
    async with brokerd.caller() as caller:
        await caller.call("trace", grant="app", only_wait=True)
        await brokerd.call("status")
        assert provider.count() == before
        await brokerd.call("refresh", grant="app", request_id="theirs")
        found = []
        with trio.fail_after(SOON):
            while not found or found[-1]["step"] != "end":
                found.append((await caller.event())[1])
    assert found[0]["request_id"] == "theirs"
    assert names(found)[-2:] == ["ended", "end"]


def encodings(secret: str) -> set[str]:
    plain = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], plain}


async def test_no_secret_of_any_dialect_is_in_a_trace(brokerd: Brokerd, serving: Serving) -> None:
    providers = await serving.all(1)
    for provider in providers.by_name.values():
        provider.settings.echo_input = True
    grants = {name: {**table, "on_demand": True} for name, table in FIVE.items()}
    brokerd.configure(grants, every(providers.by_name))
    await brokerd.start()
    found: list[Steps] = []

    async def follow(name: str) -> None:
        found.append(await traced(brokerd, name))

    for number in range(3):  # the first asks with credentials, the others with refresh tokens if there are any
        for name in grants:
            await brokerd.until(name, lambda status: status["expires_at"] is None)
        async with trio.open_nursery() as nursery:
            for name, table in grants.items():
                if number == 2:
                    provider = providers.by_name[table["provider"]]
                    echo = {"error": "invalid_request", "error_description": f"see {last_sent(provider)}"}
                    provider.fail_with(400, {"X-Request-ID": echo["error_description"][-40:]}, body=echo)
                nursery.start_soon(follow, name)
    said = json.dumps(found)
    secrets = set(CONFIGURED_SECRETS).union(*(each.secret_values() for each in providers.by_name.values()))
    assert len(secrets) > len(FIVE)
    assert said.count('"step": "answer"') >= 3 * len(FIVE)
    assert "invalid_request" in said
    assert [each for each in secrets if any(form in said for form in encodings(each))] == []


def last_sent(provider: Any) -> str:
    """All that the provider has been sent last, as a hostile one repeats it."""
    request = provider.requests[-1].request
    return request.body.decode() + " ".join(value for _, value in request.headers)


async def test_who_may_not_renew_a_grant_follows_no_renewal_of_it(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await started(
        brokerd,
        serving,
        socket_mode="0666",
        allow=[{"grants": ["app"], "caller": {"uid": other_user.uid}, "actions": ["get", "status"]}],
    )
    before = provider.count()
    async with other_user.connected(brokerd) as stranger:
        for grant, code in (("app", "denied"), ("none", "unknown_grant")):
            for only_wait in (False, True):
                assert (await stranger.call("trace", grant=grant, only_wait=only_wait))["code"] == code
    assert provider.count() == before
