# A refresh token that a person imports: what brokerd says before and after the provider has seen it, which grants take
# none, and that the command that status names brings a revoked grant back.
from __future__ import annotations

import pytest

from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, Table, at
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2

STATIC: Table = {"provider": "maps", "credentials": {"token": "test-only-static-token"}}


def refresh_token(provider: OAuth2, *, dead: bool = False) -> str:
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    token.revoked = dead
    return token.value


async def test_an_import_says_whether_the_provider_has_accepted_the_token(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    done = await brokerd.call("import", grant="app", refresh_token=refresh_token(provider, dead=True), wait=10)
    assert (done["accepted"], done["error"]["code"]) == (False, "needs_login")
    assert "invalid_grant" in done["error"]["message"]
    assert "to fix: brokerctl import app" in done["error"]["message"]
    done = await brokerd.call("import", grant="app", refresh_token=refresh_token(provider), wait=10)
    assert (done["accepted"], done["error"]) == (True, None)
    await brokerd.get("app")
    provider.down = True
    done = await brokerd.call("import", grant="app", refresh_token=refresh_token(provider), wait=10)
    assert (done["accepted"], done["error"]["code"]) == (False, "unavailable")
    assert "app has no token from its provider yet" in done["error"]["message"]
    done = await brokerd.call("import", grant="app", refresh_token=refresh_token(provider))
    assert done["accepted"] is None, "nobody waited"


async def test_a_grant_that_is_renewed_by_no_refresh_token_takes_none(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    grants = {"service": FIVE["oauth2"], "key": STATIC}
    brokerd.configure(grants, {"oauth2": at(provider), "maps": {"dialect": "static"}})
    await brokerd.start()
    for name, kind in (("service", "grant_type client_credentials"), ("key", "provider maps")):
        error = await brokerd.error("import", grant=name, refresh_token="test-only-refresh-token")
        assert error["code"] == "bad_request"
        assert f"({kind}) is renewed by no refresh token" in error["message"]
        assert f"use instead: brokerctl refresh {name}" in error["message"]
        await brokerd.call("revoke", grant=name)
        error = await brokerd.error("import", grant=name, refresh_token="test-only-refresh-token")
        assert f"use instead: brokerctl login {name}" in error["message"]


@pytest.mark.parametrize("kind", ["service", "person", "password"])
async def test_the_command_that_status_names_brings_a_revoked_grant_back(
    brokerd: Brokerd, serving: Serving, kind: str
) -> None:
    provider = await serving(OAuth2())
    grants = {"service": FIVE["oauth2"], "person": IMPORTED, "password": FIVE["oauth2-password"]}
    brokerd.configure({"app": grants[kind]}, {"oauth2": at(provider)})
    await brokerd.start()
    if kind == "person":
        await brokerd.call("import", grant="app", refresh_token=refresh_token(provider))
    await brokerd.get("app")
    await brokerd.call("revoke", grant="app")
    program, method, *words = str((await brokerd.status("app"))["remedy"]).split()
    assert (program, words) == ("brokerctl", ["app"])
    more = {"refresh_token": refresh_token(provider)} if method == "import" else {}
    assert (method == "import") is (kind == "person")
    await brokerd.call(method, grant="app", **more)
    await brokerd.get("app")
