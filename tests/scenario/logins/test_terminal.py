# What a person sees and does at brokerctl login: the code with its QR code and countdown, Ctrl-C, a second login, a
# daemon that goes away, a password that nobody sees.
from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.real.servers import OidcProvider
from tests.scenario.daemon.harness import CLIENT, Brokerd, Serving, at
from tests.scenario.logins.terminal import Terminal
from tests.scenario.logins.test_device import grant, provider
from tests.servers import OAUTH2_PASSWORD, OAUTH2_USER, OAuth2

Start = Callable[..., Terminal]


@pytest.mark.real
async def test_a_login_that_comes_to_nothing_changes_nothing(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant("dev-public")}, {"op": provider(real_oidc)})
    await brokerd.start()
    at_terminal = terminal("login", "app", is_tty=True, COLUMNS="100", LINES="60")
    said = await at_terminal.until("the code expires in 4m 5")
    assert f"{real_oidc.url}/device" in said
    assert "▀" in said or "█" in said, "a QR code is drawn"
    at_terminal.interrupt()
    assert await at_terminal.end() == 130
    await brokerd.said("the client that began it has disconnected")

    second = terminal("login", "app", "--json")
    assert (await second.json())["prompt"]["kind"] == "device"
    third = terminal("login", "app")
    await third.until("and enter this code:")
    assert "▀" not in third.said
    assert "\r" not in third.said
    assert await second.end() == 4
    assert "another login for this grant was begun" in second.said
    await brokerd.kill()
    assert await third.end() == 6
    await brokerd.start()
    status = await brokerd.status("app")
    assert (status["state"], status["generation"]) == ("needs_login", 0)


async def test_a_password_is_typed_unseen_sent_once_and_kept_nowhere(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    idp = await serving(OAuth2())
    credentials = {**CLIENT, "username": OAUTH2_USER}
    app = {"provider": "oauth2", "grant_type": "password", "credentials": credentials}
    brokerd.configure({"app": app}, {"oauth2": at(idp)})
    await brokerd.start()
    needs = await brokerd.error("get", grant="app")
    assert (needs["code"], "brokerctl login app" in needs["message"]) == ("needs_login", True)

    wrong = terminal("login", "app", is_tty=True)
    await wrong.until("not shown, used once")
    wrong.type("test-only-wrong\n")
    assert await wrong.end() == 3
    right = terminal("login", "app", is_tty=True)
    await right.until("not shown, used once")
    right.type(OAUTH2_PASSWORD + "\n")
    await right.until("app: logged in")
    assert await right.end() == 0
    assert idp.count("issue") == 2
    assert OAUTH2_PASSWORD not in right.said + brokerd.log
    assert "test-only-wrong" not in wrong.said + brokerd.log

    first = await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    assert await brokerd.get("app") != first
    await brokerd.restart()
    await brokerd.get("app")
    assert idp.count("issue") == 2


async def test_a_revoked_grant_that_needs_nobody_begins_anew(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    idp = await serving(OAuth2())
    app = {"provider": "oauth2", "grant_type": "client_credentials", "credentials": CLIENT}
    brokerd.configure({"app": app, "old": {**app, "grant_type": "refresh_token"}}, {"oauth2": at(idp)})
    await brokerd.start()
    await brokerd.get("app")
    for name, words in (("app", "brokerctl refresh app"), ("old", "brokerctl import old")):
        error = await brokerd.error("login", grant=name)
        assert (error["code"], words in error["message"]) == ("bad_request", True)
    assert (await brokerd.status("app"))["revoked_at"] is None
    await brokerd.call("revoke", grant="app")
    assert abs((await brokerd.status("app"))["revoked_at"] - time.time()) < 60
    assert "brokerctl login app" in (await brokerd.error("get", grant="app"))["message"]
    mine = terminal("login", "app")
    assert await mine.end() == 0
    assert mine.said == "app: logged in\n"
    assert await brokerd.get("app")
