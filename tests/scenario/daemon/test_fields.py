# The further values of a token, from the provider's answer to the caller: each answer of brokerd has the fields of the
# token in it, over both sockets, after a renewal, a restart, and an answer that lacks one.
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.scenario.daemon.harness import CLIENT, FIVE, Brokerd, Serving, Table, at
from tests.scenario.http.conftest import parsed, raw
from tests.servers import OAuth2
from tests.servers.oauth2 import Settings

NAMES = ("instance_url", "id_token")


async def start(brokerd: Brokerd, serving: Serving, grant: Table, fields: tuple[str, ...] = NAMES) -> OAuth2:
    provider = await serving(OAuth2(Settings(further=NAMES)))
    configure(brokerd, provider, grant, fields)
    await brokerd.start()
    return provider


def configure(brokerd: Brokerd, provider: OAuth2, grant: Table, fields: tuple[str, ...], **urls: str) -> None:
    brokerd.configure({"app": {**grant, "fields": fields}}, {"oauth2": at(provider, **urls)}, http=True)


def belong(provider: OAuth2, found: Mapping[str, Any], names: tuple[str, ...] = NAMES) -> bool:
    """Whether the fields are those that came with the token."""
    token = provider.ledger.find(found.get("value", found.get("access_token")), "access")
    assert token is not None
    return found.get("fields") == {name: provider.further(name, token) for name in names}


async def over_http(brokerd: Brokerd) -> Any:
    return parsed(await raw(brokerd, b"GET /v1/token/app HTTP/1.0\r\n\r\n")).json


async def first_event(brokerd: Brokerd) -> Any:
    """Of the grant, as HTTP pushes it."""
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(b"GET /v1/events?grant=app HTTP/1.0\r\n\r\n")
        found = b""
        while b"\ndata: " not in found or not found.endswith(b"\n\n"):
            found += await stream.receive_some()
    return json.loads(found.partition(b"\ndata: ")[2])


async def test_fields_come_with_their_token_by_every_way(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving, FIVE["oauth2-password"])
    async with brokerd.caller() as caller:
        first = await caller.call("get", grant="app")
        assert belong(provider, first)
        assert belong(provider, (await caller.call("get_many", grants=["app"]))[0]["token"])
        await caller.call("watch", grants=["app"])
        assert belong(provider, (await caller.event())[1])
        again = await caller.call("get", grant="app", refused=first["value"])
        assert again["value"] != first["value"]
        assert belong(provider, again)
        method, pushed = await caller.event()
        assert (method, pushed["value"]) == ("token", again["value"])
        assert belong(provider, pushed)
    web = await over_http(brokerd)
    assert belong(provider, web)
    assert belong(provider, await first_event(brokerd))
    assert (await brokerd.status("app"))["fields"] == sorted(NAMES)


async def test_fields_are_as_secret_as_the_token(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving, FIVE["oauth2-password"])
    await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    found = json.dumps(await brokerd.call("status"))
    await brokerd.stop()
    written = b"".join(brokerd.bytes_of_state().values()) + brokerd.log.encode() + found.encode()
    values = provider.secret_values()
    assert sum(value.startswith("test-only-id_token-of") for value in values) == 2
    assert not [value for value in values if value.encode() in written]


async def test_fields_outlive_a_restart_and_what_a_renewal_leaves_out(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving, FIVE["oauth2-password"])
    first = await brokerd.call("get", grant="app")
    await brokerd.restart()
    assert await brokerd.call("get", grant="app") == first
    provider.settings.further_at_refresh = False
    await brokerd.call("refresh", grant="app")
    second = await brokerd.call("get", grant="app")
    assert provider.counts.renewed == 1
    assert second["value"] != first["value"]
    assert second["fields"] == first["fields"]


async def test_a_field_that_no_answer_has_is_named_and_costs_no_refresh_token(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2(Settings(further=("instance_url",), rotation=True)))
    bare = {"provider": "oauth2", "grant_type": "refresh_token", "credentials": CLIENT}
    configure(brokerd, provider, bare, NAMES)
    await brokerd.start()
    refresh = provider.issue_refresh(provider.ledger.family(), "somebody", CLIENT["client_id"], ("read",))
    await brokerd.call("import", grant="app", refresh_token=refresh.value)
    error = await brokerd.error("get", grant="app")
    assert error["code"] == "misconfigured"
    assert "refresh_token: the answer has no id_token, which fields names; add openid to scope" in error["message"]
    configure(brokerd, provider, bare, ("instance_url",))
    await brokerd.call("reload")
    assert belong(provider, await brokerd.call("get", grant="app"), ("instance_url",))
    assert provider.counts.reused == 0
    assert provider.counts.renewed >= 2


async def test_a_field_that_is_added_gets_a_new_token_and_one_that_is_removed_is_served_no_more(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await start(brokerd, serving, FIVE["oauth2"], ())
    first = await brokerd.call("get", grant="app")
    assert "fields" not in first
    for names in (NAMES, ("id_token",)):
        configure(brokerd, provider, FIVE["oauth2"], names)
        await brokerd.call("reload")
        with trio.fail_after(10):
            while (found := await brokerd.call("get", grant="app"))["value"] == first["value"]:
                await trio.sleep(0.01)
        first = found
        assert belong(provider, found, names)


async def test_a_downscoped_token_has_the_fields_of_its_own_answer(brokerd: Brokerd, serving: Serving) -> None:
    provider = await start(brokerd, serving, {**FIVE["oauth2-password"], "scope": ["read", "write"]})
    own = await brokerd.call("get", grant="app")
    narrow = await brokerd.call("get", grant="app", scope=["read"])
    assert own["value"] != narrow["value"]
    assert belong(provider, own)
    assert belong(provider, narrow)
    provider.settings.further_at_refresh = False
    other = await brokerd.call("get", grant="app", scope=["write"])
    assert "fields" not in other


@pytest.mark.parametrize("size", [65_000, 66_000])
async def test_fields_of_64_kib_together_are_served_and_more_is_an_error(
    brokerd: Brokerd, serving: Serving, size: int
) -> None:
    class Large(OAuth2):
        def further(self, name: str, token: Any) -> str:
            return f"{name}-of-{token.id}".ljust(size // 2, "x")

    provider = await serving(Large(Settings(further=NAMES)))
    configure(brokerd, provider, FIVE["oauth2"], NAMES)
    await brokerd.start()
    if size < 65_536:
        assert belong(provider, await brokerd.call("get", grant="app"))
        assert belong(provider, await over_http(brokerd))
    else:
        error = await brokerd.error("get", grant="app")
        assert "bytes together, and 65536 are allowed; name fewer in fields" in error["message"]
