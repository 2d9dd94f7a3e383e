# Downscoped tokens at npm's oidc-provider: narrower scopes by refresh token and by client credentials, resources (RFC
# 8707), and the exchange of the grant's own token (RFC 8693). The server itself says what each token may do.
from __future__ import annotations

import jwt
import pytest

from tests.real.servers import LOGIN_SCOPE, OidcProvider, device_login, introspect
from tests.scenario.daemon.harness import Brokerd, Table

pytestmark = pytest.mark.real
OPAQUE, JWT = "urn:api:opaque", "https://api.test/jwt"


def at(server: OidcProvider) -> Table:
    return {"dialect": "oauth2", "issuer": server.issuer, "ca_file": server.ca_file}


def grant(server: OidcProvider, client: str, grant_type: str, **more: object) -> Table:
    known = server.clients[client]
    credentials = {"client_id": known.id, "client_secret": known.secret, **more.pop("credentials", {})}  # type: ignore[dict-item]
    return {"provider": "op", "grant_type": grant_type, "credentials": credentials, **more}


def scopes(server: OidcProvider, token: str) -> set[str]:
    claims = introspect(server, token)
    assert claims["active"] is True
    return set(claims["scope"].split())


@pytest.mark.parametrize("client", ["dev-basic", "dev-norotate"])
async def test_a_refresh_token_gives_less_and_then_all_again(
    brokerd: Brokerd, real_oidc: OidcProvider, client: str
) -> None:
    auth = real_oidc.clients[client].auth
    more = {"client_auth": auth, "scope": LOGIN_SCOPE.split()}
    brokerd.configure({"app": grant(real_oidc, client, "refresh_token", **more)}, {"op": at(real_oidc)})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=device_login(real_oidc, client))
    own = await brokerd.get("app")
    whole = scopes(real_oidc, own)
    assert whole >= {"api:read", "api:write"}
    variant = await brokerd.call("get", grant="app", scope=["api:read"])
    assert variant["scope"] == ["api:read"]
    assert scopes(real_oidc, variant["value"]) == {"api:read"}
    assert await brokerd.get("app") == own
    await brokerd.call("refresh", grant="app")
    assert scopes(real_oidc, await brokerd.get("app")) == whole, "the variant's scope stuck"
    assert await brokerd.get("app", scope=["api:read"]) == variant["value"]
    await brokerd.kill()
    await brokerd.start()
    assert await brokerd.get("app", scope=["api:read"]) == variant["value"]
    assert (await brokerd.status("app"))["variants"] == 1
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "told"
    assert introspect(real_oidc, variant["value"])["active"] is False


async def test_a_slip_of_a_caller_costs_no_login(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    """This server uses the refresh token up and then refuses the resource: what is not configured is not sent there."""
    brokerd.configure(
        {"app": grant(real_oidc, "dev-basic", "refresh_token", scope=LOGIN_SCOPE.split())}, {"op": at(real_oidc)}
    )
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=device_login(real_oidc))
    own = await brokerd.get("app")
    for wanted in ({"scope": ["admin"]}, {"resource": JWT}, {"audience": "other"}):
        error = await brokerd.error("get", grant="app", **wanted)
        assert error["code"] == "bad_request"
    status = await brokerd.status("app")
    assert (status["state"], status["interrupted"]) == ("ready", None)
    assert await brokerd.get("app") == own
    await brokerd.call("refresh", grant="app")


async def test_a_refused_resource_that_used_the_refresh_token_up_is_said(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    more = {"scope": LOGIN_SCOPE.split(), "variants": {"resource": [JWT]}}
    brokerd.configure({"app": grant(real_oidc, "dev-basic", "refresh_token", **more)}, {"op": at(real_oidc)})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=device_login(real_oidc))
    own = await brokerd.get("app")
    error = await brokerd.error("get", grant="app", resource=JWT)
    assert (error["code"], "invalid_target" in error["message"]) == ("bad_request", True)
    status = await brokerd.status("app")
    assert status["state"] == "ready"
    assert status["interrupted"] is not None
    assert await brokerd.get("app") == own
    assert introspect(real_oidc, own)["active"] is True, "the used refresh token was sent again: all tokens are dead"


async def test_client_credentials_give_less_and_tokens_for_other_resources(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    own_scope = ["api:read", "api:write"]
    brokerd.configure(
        {"app": grant(real_oidc, "cc-basic", "client_credentials", scope=own_scope)}, {"op": at(real_oidc)}
    )
    await brokerd.start()
    own = await brokerd.get("app")
    narrow = await brokerd.get("app", scope=["api:write"])
    assert scopes(real_oidc, narrow) == {"api:write"}
    for_api = await brokerd.get("app", resource=JWT, scope=["api:read"])
    claims = jwt.decode(for_api, options={"verify_signature": False})
    assert (claims["aud"], claims["scope"]) == (JWT, "api:read")
    await brokerd.call("refresh", grant="app")
    renewed = await brokerd.get("app")
    assert renewed != own
    assert scopes(real_oidc, renewed) == set(own_scope)
    assert introspect(real_oidc, renewed)["aud"] == OPAQUE
    error = await brokerd.error("get", grant="app", resource="https://api.test/unknown")
    assert (error["code"], "invalid_target" in error["message"]) == ("bad_request", True)


async def test_the_grants_own_token_is_exchanged_for_less(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    by_exchange: Table = {"subject": {"grant": "base"}, "variants": {"exchange": True}}
    brokerd.configure(
        {
            "base": grant(real_oidc, "cc-basic", "client_credentials"),
            "app": grant(real_oidc, "exchange-basic", "token_exchange", **by_exchange),
        },
        {"op": at(real_oidc)},
    )
    await brokerd.start()
    assert scopes(real_oidc, await brokerd.get("app")) == {"api:read", "api:write"}
    variant = await brokerd.get("app", scope=["api:read"], audience="other")
    claims = introspect(real_oidc, variant)
    assert (claims["scope"], claims["aud"]) == ("api:read", "other")
