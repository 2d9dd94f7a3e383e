# Device logins (RFC 8628) by the real brokerd and brokerctl at npm's oidc-provider, which takes back what it gave where
# a code is asked for again.
from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.real.servers import LOGIN_SCOPE, OidcProvider, approve, introspect
from tests.scenario.daemon.harness import Brokerd, Table
from tests.scenario.logins.terminal import Terminal

pytestmark = pytest.mark.real
Start = Callable[..., Terminal]


def provider(server: OidcProvider, **more: object) -> Table:
    return {"dialect": "oauth2", "issuer": server.issuer, "ca_file": server.ca_file, **more}


def grant(name: str, **more: object) -> Table:
    credentials = {"client_id": name, **more.pop("credentials", {})}  # type: ignore[dict-item]
    scope = LOGIN_SCOPE.split()
    return {"provider": "op", "grant_type": "device_code", "scope": scope, "credentials": credentials, **more}


def grants(server: OidcProvider) -> dict[str, Table]:
    secret = {"client_secret": server.clients["dev-basic"].secret}
    return {
        "dev-public": grant("dev-public"),
        "dev-basic": grant("dev-basic", credentials=secret),
        "dev-post": grant("dev-post", credentials=secret, client_auth="client_secret_post"),
        "dev-pkjwt": grant("dev-pkjwt", credentials={"private_key": {"file": server.folder / "pkjwt.key"}}),
        "dev-dpop": grant("dev-dpop", dpop=True),
    }


async def test_a_person_logs_in_with_a_code_for_every_kind_of_client(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    made = grants(real_oidc)
    made["denied"] = grant("dev-public")
    brokerd.configure(made, {"op": provider(real_oidc)})
    await brokerd.start()
    before = len(real_oidc.log.read_text())
    needs = await brokerd.error("get", grant="dev-basic")
    assert (needs["code"], "brokerctl login dev-basic" in needs["message"]) == ("needs_login", True)
    assert (await brokerd.status("dev-basic"))["remedy"] == "brokerctl login dev-basic"
    terminals = {name: terminal("login", name, "--json") for name in made}

    async def person(name: str) -> None:
        code = (await terminals[name].json())["prompt"]["user_code"]
        await trio.to_thread.run_sync(lambda: approve(real_oidc, code, user=f"alice-{name}", deny=name == "denied"))

    async with trio.open_nursery() as nursery:
        for name in made:
            nursery.start_soon(person, name)
    for name, each in terminals.items():
        if name == "denied":
            assert await each.end() == 3
            assert "access_denied" in each.said
            assert (await brokerd.status(name))["state"] == "needs_login"
            continue
        done = (await each.json())["done"]
        assert (done["subject"], done["stored"], done["note"]) == (f"alice-{name}", True, None)
        assert await each.end() == 0
        token = await brokerd.get(name)
        claims = introspect(real_oidc, token)
        assert (claims["active"], claims["client_id"], claims["sub"]) == (True, name, f"alice-{name}")
        assert token not in each.said + brokerd.log
        assert (await brokerd.status(name))["generation"] == 1
    granted = [line for line in real_oidc.log.read_text()[before:].splitlines() if "grant.success" in line]
    assert len(granted) == len(made) - 1, "a code is asked for once after it was confirmed"
    assert introspect(real_oidc, await brokerd.get("dev-dpop"))["token_type"] == "DPoP"
    await brokerd.restart()
    await brokerd.call("refresh", grant="dev-dpop")
    assert introspect(real_oidc, await brokerd.get("dev-dpop"))["active"] is True
