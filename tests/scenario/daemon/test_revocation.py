# Revocation is final and durable (law 10): written first, nothing is served from then on, and the provider is told as
# often as it takes, across restarts. Only an import (later a login) ends it.
from __future__ import annotations

import pytest
from brokerd_client.errors import Revoked

from tests.scenario.daemon.callers import Api
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, Table, at, every
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2


async def test_a_revoked_grant_is_told_to_the_provider_and_serves_nothing_ever_after(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    async with brokerd.caller() as watcher:
        await watcher.call("watch", grants=["app"])
        await watcher.event()
        done = await brokerd.call("revoke", grant="app")
        assert (done["stored"], done["provider"]) == (True, "told")
        name, gone = await watcher.event()
        assert (name, gone["code"]) == ("gone", "revoked")
    assert (await api.me(provider, value))[0] == 401
    assert provider.counts.revoked == 2
    sent = provider.count()
    for method in ("get", "refresh"):
        assert (await brokerd.error(method, grant="app"))["code"] == "revoked"
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    await brokerd.call("reload")
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "told"
    assert provider.count() == sent


async def test_a_revocation_survives_kill_9_and_is_told_when_the_provider_is_back(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    provider.down = True
    done = await brokerd.call("revoke", grant="app", wait=1)
    assert (done["stored"], done["provider"]) == (True, "pending")
    await brokerd.kill()
    await brokerd.start()
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert (await brokerd.status("app"))["pending_revocations"] == 2
    provider.down = False
    assert (await brokerd.call("revoke", grant="app", wait=20))["provider"] == "told"
    assert (await api.me(provider, value))[0] == 401
    assert provider.counts.revoked == 2
    assert (await brokerd.status("app"))["pending_revocations"] == 0


async def test_a_pending_revocation_is_told_by_itself(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    provider.fail_with(503, operation="revoke")
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "pending"
    await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert provider.counts.revoked == 2
    assert provider.statuses("revoke") == [503, 200, 200]


async def test_tokens_that_come_after_the_revocation_are_revoked_too(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            number = await caller.send("refresh", grant="app")
            await gate.reached()
            done = await brokerd.call("revoke", grant="app", wait=0)
            assert done["stored"]
            assert (await brokerd.error("get", grant="app", wait=0))["code"] == "revoked"
            gate.release()
            error, _ = await caller.answer(number)
    assert error is not None
    assert error["code"] == "revoked"
    await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert not [token for token in provider.ledger.tokens.values() if token.alive(provider.settings.now())]


async def test_where_the_provider_has_no_revocation_it_is_said(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(3600)
    grants = ("ix", "occam-password", "treezor")
    brokerd.configure({grant: FIVE[grant] for grant in grants}, every(fleet.by_name))
    await brokerd.start()
    for grant in grants:
        await brokerd.get(grant)
        done = await brokerd.call("revoke", grant=grant)
        assert (done["stored"], done["provider"]) == (True, "unsupported")
        assert done["detail"].startswith("the provider cannot be told of the refresh token and the access token, which")
        assert (await brokerd.error("get", grant=grant))["code"] == "revoked"


async def test_click2mails_short_token_is_revoked_and_then_the_long_one(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    fleet = await serving.all(3600)
    provider = fleet.click2mail
    provider.settings.id_prefix = "tok/% b_"  # wants encoding in the path
    provider.settings.token_id_in_body = False
    brokerd.configure({"app": FIVE["click2mail"]}, every(fleet.by_name))
    await brokerd.start()
    value = await brokerd.get("app")
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "told"
    assert (await api.me(provider, value))[0] == 401
    assert provider.counts.revoked == 2
    kinds = [each.request.path.split("_")[1] for each in provider.requests if each.operation == "revoke"]
    assert kinds == ["access", "refresh"]


async def test_an_import_ends_it_and_an_edited_configuration_does_not(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    await brokerd.call("revoke", grant="app")
    vanished: dict[str, Table] = {}
    for grants in (vanished, {"app": FIVE["oauth2-password"]}):
        brokerd.configure(grants, {"oauth2": at(provider)})
        await brokerd.call("reload")
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    await give(brokerd, provider)
    assert await brokerd.get("app")
    assert (await brokerd.status("app"))["state"] == "ready"
    await brokerd.restart()
    assert await brokerd.get("app", wait=0)


@pytest.mark.parametrize("by", ["reload", "restart"])
async def test_an_edited_address_does_not_end_a_revocation(brokerd: Brokerd, serving: Serving, by: str) -> None:
    old, new = await serving(OAuth2()), await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(old)})
    await brokerd.start()
    await brokerd.get("app")
    await brokerd.call("revoke", grant="app")
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(new)})
    if by == "reload":
        await brokerd.call("reload")
    else:
        await brokerd.restart()
    with pytest.raises(Revoked):
        await brokerd.get("app")
    assert new.count() == 0


async def test_an_import_does_not_forget_what_the_provider_has_still_to_be_told(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    first = await give(brokerd, provider)
    value = await brokerd.get("app")
    provider.fail_with(503, operation="revoke")
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "pending"
    await give(brokerd, provider)
    assert await brokerd.get("app") != value
    await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert (await api.me(provider, value))[0] == 401, "a revoked token lives on at the provider"
    assert (await api.me(provider, await brokerd.get("app", wait=0)))[0] == 200
    assert provider.ledger.find(first) is not None


async def test_an_imported_token_replaces_and_is_tried_at_once(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    error = await brokerd.error("get", grant="app")
    assert (error["code"], "brokerctl import app" in error["message"]) == ("needs_login", True)
    await brokerd.call("import", grant="app", refresh_token="test-only-of-somebody-else")
    status = await brokerd.until("app", lambda status: status["state"] == "needs_login")
    assert "invalid_grant" in status["last_error"]
    await give(brokerd, provider)
    await brokerd.until("app", lambda status: status["expires_at"] is not None)
    assert provider.count("refresh") == 2


async def give(brokerd: Brokerd, provider: OAuth2) -> str:
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read", "write"))
    await brokerd.call("import", grant="app", refresh_token=token.value)
    return token.value
