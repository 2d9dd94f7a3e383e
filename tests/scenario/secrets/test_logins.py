# Logins by a person, assertions and proofs at npm's oidc-provider: whatever it gave out, code or token, is searched for
# in all that brokerd wrote and brokerctl showed.
from __future__ import annotations

import pytest
import trio

from tests.real.servers import LOGIN_SCOPE, OidcProvider, approve
from tests.real.servers.browser import Browser, log_in
from tests.scenario.logins.terminal import Terminal
from tests.scenario.secrets.search import of_text, search
from tests.scenario.secrets.world import World

pytestmark = pytest.mark.real


def configure(world: World, server: OidcProvider) -> None:
    key = world.secret((server.folder / "pkjwt.key").read_text(), "private key")
    ca_file = world.file("ca.pem", server.ca_file.read_text())
    secret = world.secret(server.clients["dev-basic"].secret or "", "client secret")
    kinds = {
        "device": ("device_code", {"client_id": "dev-basic", "client_secret": secret}),
        "browser": ("authorization_code", {"client_id": "code-pkce"}),
        "signed": (
            "client_credentials",
            {"client_id": "cc-pkjwt", "private_key": {"file": world.file("key.pem", key)}},
        ),
        "bound": ("client_credentials", {"client_id": "cc-dpop", "client_secret": secret}),
    }
    grants = {
        name: {"provider": "op", "grant_type": grant_type, "scope": LOGIN_SCOPE.split(), "credentials": credentials}
        for name, (grant_type, credentials) in kinds.items()
    }
    for name in ("signed", "bound"):
        grants[name]["scope"] = ["api:read"]
    grants["bound"]["dpop"] = True
    issuer = {"dialect": "oauth2", "issuer": server.issuer, "ca_file": ca_file}
    world.brokerd.configure(grants, {"op": issuer})
    world.brokerd.its_environment = ()  # a secret that nobody asks for stays in it


async def logged_in(world: World, server: OidcProvider, name: str, *, deny: bool = False) -> None:
    terminal = Terminal(world.brokerd.socket, ("login", name, "--json"), is_tty=False, environment={})
    try:
        said = await terminal.json()
        if name == "device":
            code = said["prompt"]["user_code"]
            await trio.to_thread.run_sync(lambda: approve(server, code, deny=deny))
        else:
            while "open" not in said:
                said = await terminal.json()
            url = said["open"]
            page = await trio.to_thread.run_sync(lambda: log_in(Browser(server.ca_file), url, user="alice", deny=deny))
            world.heard(page.text)
        assert (await terminal.end() == 0) != deny
    finally:
        terminal.close()
    world.heard(terminal.said)


async def test_no_code_or_token_of_a_login_is_written_or_shown(world: World, real_oidc: OidcProvider) -> None:
    configure(world, real_oidc)
    await world.brokerd.start()
    for name in ("device", "browser"):
        await logged_in(world, real_oidc, name, deny=True)
        await logged_in(world, real_oidc, name)
    for name in ("device", "browser", "signed", "bound"):
        assert (await world.ask("get", grant=name))["value"]
        await world.ask("refresh", grant=name)
        await world.ask("proof", grant=name, http_method="GET", url="https://x.example/")
        await world.ask("verify", grant=name)
    await world.ask("status")
    world.look("running")
    for name in ("device", "bound"):
        await world.ask("revoke", grant=name)
    assert await world.brokerd.stop() == 0
    world.look("at its end")
    issued = of_text(real_oidc.issued, "given out")
    assert len(issued) >= 10, "two codes, and two tokens or three of each grant"
    found = search({**world.secrets, **issued}, world.everything())
    assert not found, "\n".join(map(str, found))
