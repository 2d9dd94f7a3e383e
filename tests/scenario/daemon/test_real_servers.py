# brokerd over HTTPS with two servers that nobody here wrote: npm's oidc-provider, whose refresh tokens rotate and whose
# reuse detection kills a login, and Django's simplejwt, which is no OAuth and is spoken to by an operator's own recipe.
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.real.servers import OidcProvider, SimpleJwt, device_login, introspect
from tests.scenario.daemon.harness import Brokerd, Table

pytestmark = pytest.mark.real
LIFETIME = 2  # seconds

SIMPLEJWT = """\
# djangorestframework-simplejwt: two JWTs by user name and password; rotation with a blacklist, no lifetimes in answers.
credentials = ["username", "password"]

[[issue]]
request = "POST /token/"
json    = { username = "{username}", password = "{password}" }
errors  = { 400 = "misconfigured", 401 = "misconfigured" }

[renew]
request = "POST /token/refresh/"
json    = { refresh = "{refresh_token}" }
errors  = { 401 = "rejected" } # token_not_valid: expired, used up or blacklisted

[revoke.refresh_token]
request = "POST /token/blacklist/"
json    = { refresh = "{refresh_token}" }
errors  = { 401 = "done" }

[answer]
access_token  = "access"
refresh_token = "refresh"

[errors]
reason = "detail"
"""


# -- oidc-provider


def at(server: OidcProvider) -> Table:
    urls = {"token_url": server.token_url, "revocation_url": server.revocation_url}
    return {"dialect": "oauth2", **urls, "ca_file": server.ca_file}


def grant_of(server: OidcProvider, name: str, grant_type: str) -> Table:
    client = server.clients[name]
    credentials = {"client_id": client.id} | ({} if client.secret is None else {"client_secret": client.secret})
    return {"provider": "op", "grant_type": grant_type, "client_auth": client.auth, "credentials": credentials}


async def test_clients_authenticate_whatever_is_in_their_id_and_secret(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    names = ("cc-basic", "cc-post", "cc-odd-id", "odd-basic", "odd-post")
    grants = {name: {**grant_of(real_oidc, name, "client_credentials"), "scope": ["api:read"]} for name in names}
    brokerd.configure(grants, {"op": at(real_oidc)})
    await brokerd.start()
    for name in names:
        claims = introspect(real_oidc, await brokerd.get(name))
        assert claims["active"] is True
        assert (claims["client_id"], claims["scope"]) == (real_oidc.clients[name].id, "api:read")
        status = await brokerd.status(name)
        assert status["expires_at"] - status["issued_at"] == pytest.approx(60, abs=0.1)
    error = await brokerd.call("revoke", grant="odd-basic")
    assert error["provider"] == "told"


async def test_a_server_of_an_unknown_authority_is_sent_nothing(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    provider = at(real_oidc)
    del provider["ca_file"]
    brokerd.configure({"app": grant_of(real_oidc, "cc-basic", "client_credentials")}, {"op": provider})
    before = real_oidc.log.read_text()
    await brokerd.start()
    error = await brokerd.error("get", grant="app", wait=2)
    assert error["code"] == "unavailable"
    assert "certificate" in error["message"]
    assert real_oidc.log.read_text() == before


def renewed(times: int, status: Table) -> bool:
    return bool(status["renewals"] >= times)


async def test_a_login_lives_on_over_renewals_and_kill_9_though_reuse_would_end_it(
    brokerd: Brokerd, start_oidc: Callable[..., OidcProvider]
) -> None:
    server = start_oidc(access_ttl=LIFETIME)
    names = ("dev-basic", "dev-post", "dev-public")
    brokerd.configure({name: grant_of(server, name, "refresh_token") for name in names}, {"op": at(server)})
    await brokerd.start()
    imported = {name: device_login(server, name) for name in names}
    for name, token in imported.items():
        await brokerd.call("import", grant=name, refresh_token=token)
        await brokerd.get(name)
    for restart in range(2):
        for name in names:
            await brokerd.until(name, partial(renewed, restart * 2 + 2))
            assert introspect(server, await brokerd.get(name, wait=0))["active"] is True
        await brokerd.kill()
        await brokerd.start()
        for name in names:
            await brokerd.call("refresh", grant=name)
            assert (await brokerd.status(name))["interrupted"] is None
    assert "grant.error" not in server.log.read_text()

    # That was no mercy of the server's: a used token that comes again ends the login.
    form = {"grant_type": "refresh_token", "refresh_token": imported["dev-public"], "client_id": "dev-public"}
    assert server.send("POST", "/token", form=form).json()["error"] == "invalid_grant"
    status = await brokerd.until("dev-public", lambda status: status["state"] == "needs_login")
    assert "invalid_grant" in status["last_error"]
    await brokerd.call("refresh", grant="dev-post")  # the others' logins are their own


async def test_a_revoked_token_is_dead_for_the_server_too(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({"app": grant_of(real_oidc, "dev-norotate", "refresh_token")}, {"op": at(real_oidc)})
    await brokerd.start()
    token = device_login(real_oidc, "dev-norotate")
    await brokerd.call("import", grant="app", refresh_token=token)
    value = await brokerd.get("app")
    assert (introspect(real_oidc, value)["active"], introspect(real_oidc, token)["active"]) == (True, True)
    done = await brokerd.call("revoke", grant="app")
    assert (done["stored"], done["provider"]) == (True, "told")
    assert (introspect(real_oidc, value)["active"], introspect(real_oidc, token)["active"]) == (False, False)


# -- simplejwt


def with_recipe(brokerd: Brokerd, server: SimpleJwt, grants: dict[str, Table]) -> None:
    brokerd.write(SIMPLEJWT, "recipes/simplejwt.toml")
    brokerd.write(SIMPLEJWT.replace('/token/"', '/token"'), "recipes/slashless.toml")
    providers = {
        name: {"dialect": name, "base_url": server.url, "ca_file": server.ca_file}
        for name in ("simplejwt", "slashless")
    }
    brokerd.configure(grants, providers)


def login(server: SimpleJwt) -> str:
    answer = server.send("POST", "/token/", json={"username": "bob", "password": server.users["bob"]})
    return str(answer.json()["refresh"])


async def test_an_operators_recipe_speaks_to_a_server_that_is_no_oauth(
    brokerd: Brokerd, start_simplejwt: Callable[..., SimpleJwt]
) -> None:
    server = start_simplejwt(access_ttl=LIFETIME)
    alice = {"username": "alice", "password": server.users["alice"]}
    grants: dict[str, Table] = {
        "alice": {"provider": "simplejwt", "credentials": alice},
        "bob": {"provider": "simplejwt"},
        "wrong": {"provider": "simplejwt", "credentials": {**alice, "password": "test-only-wrong"}},
        "slashless": {"provider": "slashless", "credentials": alice},
    }
    with_recipe(brokerd, server, grants)
    await brokerd.start()
    imported = login(server)
    await brokerd.call("import", grant="bob", refresh_token=imported)

    def who(value: str) -> str:
        answer = server.send("GET", "/me/", headers={"Authorization": f"Bearer {value}"})
        assert answer.status == 200, answer
        return str(answer.json()["user"])

    for name in ("alice", "bob"):
        assert who(await brokerd.get(name)) == name
        status = await brokerd.status(name)
        assert LIFETIME - 1 <= status["expires_at"] - status["issued_at"] <= LIFETIME  # the JWT's own
        assert 3590 < status["refresh_expires_at"] - status["issued_at"] <= 3600
    error = await brokerd.error("get", grant="wrong")
    assert (error["code"], "No active account" in error["message"]) == ("misconfigured", True)
    error = await brokerd.error("get", grant="slashless", wait=0.5)
    assert (error["code"], "answered 404 with text/html" in error["message"]) == ("unavailable", True)

    for name in ("alice", "bob"):
        await brokerd.until(name, lambda status: status["renewals"] >= 3)
        assert who(await brokerd.get(name, wait=0)) == name
    await brokerd.kill()
    await brokerd.start()
    for name in ("alice", "bob"):
        await brokerd.call("refresh", grant=name)
        assert who(await brokerd.get(name, wait=0)) == name
        assert (await brokerd.status(name))["interrupted"] is None

    # A used one is refused, and only where there is no password somebody has to log in.
    await brokerd.call("import", grant="bob", refresh_token=imported)
    status = await brokerd.until("bob", lambda status: status["state"] == "needs_login")
    assert "401: Token is blacklisted" in status["last_error"]
    await brokerd.call("import", grant="alice", refresh_token=imported)
    assert who(await brokerd.get("alice")) == "alice"


async def test_a_revocation_by_recipe_reaches_the_servers_blacklist(
    brokerd: Brokerd, real_simplejwt: SimpleJwt
) -> None:
    with_recipe(brokerd, real_simplejwt, {"bob": {"provider": "simplejwt", "on_demand": True}})
    await brokerd.start()
    imported = login(real_simplejwt)
    await brokerd.call("import", grant="bob", refresh_token=imported)
    done = await brokerd.call("revoke", grant="bob")
    assert (done["stored"], done["provider"]) == (True, "told")
    refused = real_simplejwt.send("POST", "/token/refresh/", json={"refresh": imported})
    assert (refused.status, refused.json()["code"]) == (401, "token_not_valid")
    assert (await brokerd.error("get", grant="bob"))["code"] == "revoked"
