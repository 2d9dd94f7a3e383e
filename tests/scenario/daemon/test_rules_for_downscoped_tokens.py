# Rules for downscoped tokens (law 9) at the real socket, also for another user; and wrong parameters are refused.
from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.servers import OAuth2, Treezor
from tests.servers.http import Response
from tests.servers.oauth2 import Client


class Generous(OAuth2):
    """Gives everything whatever was asked for, and says so, as some servers do."""

    def _client_credentials(self, client: Client, given: Mapping[str, str], targets: tuple[str, ...]) -> Response:
        return super()._client_credentials(client, {**given, "scope": " ".join(client.scopes)}, targets)


async def with_rules(brokerd: Brokerd, serving: Serving, *allow: Table, generous: bool = False) -> OAuth2:
    provider = await serving(Generous() if generous else OAuth2())
    grants = {"app": FIVE["oauth2"], "hidden": FIVE["oauth2"]}
    brokerd.configure(grants, {"oauth2": at(provider)}, allow=allow, socket_mode="0666")
    await brokerd.start()
    await brokerd.call("get_many", grants=list(grants))
    return provider


@pytest.mark.usefixtures("as_root")
async def test_a_rule_without_them_allows_the_grants_own_token_only(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await with_rules(brokerd, serving, {"grants": ["app"], "caller": {"uid": other_user.uid}})
    sent = provider.count()
    async with other_user.connected(brokerd) as caller:
        assert "value" in await caller.call("get", grant="app")
        for wanted in ({"scope": ["read"]}, {"audience": "a"}, {"resource": "urn:r"}):
            assert (await caller.call("get", grant="app", **wanted))["code"] == "denied"
            hidden = await caller.call("get", grant="hidden", **wanted)
            assert hidden == {**hidden, "code": "unknown_grant"}
            assert str(hidden).replace("hidden", "qqq") == str(await caller.call("get", grant="qqq", **wanted))
    assert provider.count() == sent


@pytest.mark.usefixtures("as_root")
async def test_a_rule_with_scopes_allows_parts_of_them_and_not_the_grants_own_token(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}, "scope": ["read", "wr*"]}
    provider = await with_rules(brokerd, serving, rule)
    async with other_user.connected(brokerd) as caller:
        for scope in (["read"], ["write"], ["write", "read"]):
            found = await caller.call("get", grant="app", scope=scope)
            assert found["scope"] == sorted(scope)
        sent = provider.count()
        for refused in (
            {},
            {"scope": ["admin"]},
            {"scope": ["read", "admin"]},
            {"scope": ["read"], "audience": "a"},
            {"resource": "urn:r"},
        ):
            assert (await caller.call("get", grant="app", **refused))["code"] == "denied", refused
        assert (await caller.call("watch", grants=["app"]))["code"] == "denied"
        assert (await caller.call("get_many", grants=["app"]))[0]["error"]["code"] == "denied"
        assert [each["name"] for each in (await caller.call("status"))["grants"]] == ["app"]
    assert provider.count() == sent


@pytest.mark.usefixtures("as_root")
async def test_what_the_provider_granted_beyond_the_rule_is_not_served(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}, "scope": ["read"]}
    provider = await with_rules(brokerd, serving, rule, generous=True)
    sent = provider.count()
    async with other_user.connected(brokerd) as caller:
        for _ in range(3):
            error = await caller.call("get", grant="app", scope=["read"])
            assert error["code"] == "denied"
            assert "admin" in error["message"]
    assert provider.count() == sent + 1, "the provider is asked again for what is not served"
    assert (await brokerd.call("get", grant="app", scope=["read"]))["scope"] == ["read", "write", "admin"]


async def test_parameters_of_a_downscoped_token_are_looked_at(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_rules(brokerd, serving)
    sent = provider.count()
    for wrong in (
        {"scope": "read"},
        {"scope": []},
        {"scope": ["read write"]},
        {"scope": ['"']},
        {"scope": ["x" * 2_000]},
        {"audience": ""},
        {"audience": "a b"},
        {"resource": "no-uri"},
        {"resource": "https://api.test/#part"},
    ):
        assert (await brokerd.error("get", grant="app", **wrong))["code"] == "bad_request", wrong
    assert provider.count() == sent


async def test_a_recipe_has_the_downscoped_tokens_that_its_requests_can_name(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(Treezor())
    client = {name: FIVE["treezor"]["credentials"][name] for name in ("client_id", "client_secret")}
    brokerd.configure({"app": {"provider": "treezor", "credentials": client}}, {"treezor": at(provider)})
    await brokerd.start()
    own, narrow = await brokerd.get("app"), await brokerd.get("app", scope=["read_only"])
    assert own != narrow
    token = provider.ledger.find(narrow)
    assert token is not None
    assert token.scopes == ("read_only",)
    error = await brokerd.error("get", grant="app", audience="other")
    assert error["code"] == "bad_request"
    assert "audience" in error["message"]
    error = await brokerd.error("get", grant="app", scope=["unknown"])
    assert error["code"] == "bad_request"
    assert (await brokerd.status("app"))["state"] == "ready"
