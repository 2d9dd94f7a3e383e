# Each built-in recipe in a whole brokerd, from its first token to its revocation: at our own strict servers
# (tests/servers/gallery), and simplejwt and knox at the real ones.
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from brokerd.config.recipes import BUILT_IN_RECIPES
from tests.real.servers import SimpleJwt
from tests.scenario.daemon.harness import Brokerd, Serving, Table, at
from tests.servers.gallery import GALLERY, Vault
from tests.servers.gallery.credentials import (
    CLIENT_ID,
    EMAIL,
    KUBE_TOKEN,
    PASSWORD,
    ROLE_ARN,
    ROLE_ID,
    SECRET_ID,
    USER,
    app_key_pem,
    web_identity,
)
from tests.servers.provider import Provider
from tests.servers.tokens import Token

LOGIN = {"username": USER, "password": PASSWORD}
GRANTS: Mapping[str, Table] = {
    "aws-sts": {
        "credentials": {"web_identity_token": {"file": "IDENTITY"}},
        "settings": {"role_arn": ROLE_ARN, "role_session_name": "portal"},
    },
    "directus": {"credentials": {"email": EMAIL, "password": PASSWORD}},
    "docker-registry": {"credentials": LOGIN, "settings": {"endpoint": "auth", "service": "container_registry"}},
    "elasticsearch": {"credentials": LOGIN},
    "github-app": {
        "credentials": {"client_id": CLIENT_ID, "private_key": {"file": "KEY"}},
        "settings": {"installation_id": 4711, "permissions": {"contents": "read"}},
    },
    "gitlab": {},
    "kubernetes": {
        "credentials": {"token": KUBE_TOKEN},
        "settings": {"namespace": "ci", "service_account": "deployer"},
    },
    "matrix": {"credentials": {"user": USER, "password": PASSWORD}},
    "vault-approle": {"credentials": {"role_id": ROLE_ID, "secret_id": SECRET_ID}},
    "vault-database": {"credentials": {"token": {"grant": "vault"}}, "settings": {"role": "readonly"}},
}
ONE_TOKEN = ("gitlab", "vault-approle")  # access and refresh token are one
EXTENDED = ("vault-approle", "vault-database")  # a renewal leaves the token as it is
TOLD = {
    "aws-sts": False,
    "docker-registry": False,
    "kubernetes": False,
}  # what the provider hears of a revocation; all others do
TOLD_AS = {  # where not all tokens can be told of: of these, refresh tokens alone
    **dict.fromkeys(TOLD, "unsupported"),
    **dict.fromkeys(("directus", "gitlab"), "partly"),
}
SECRETS = (PASSWORD, SECRET_ID, KUBE_TOKEN)


async def start(brokerd: Brokerd, serving: Serving, name: str) -> Provider[Any]:
    provider = await serving(GALLERY[name]())
    text = json.dumps(GRANTS[name])
    for place, secret in (("KEY", app_key_pem()), ("IDENTITY", web_identity())):
        file = brokerd.write(secret, f"test-{place.lower()}")
        file.chmod(0o600)
        text = text.replace(f'"{place}"', json.dumps(str(file)))
    grants, providers = {"app": {"provider": "it", **json.loads(text)}}, {"it": at(provider)}
    if name == "vault-database":  # the token of Vault is another grant's
        grants["vault"] = {"provider": "vault", **GRANTS["vault-approle"]}
        providers["vault"] = {"dialect": "vault-approle", "base_url": provider.base_url}
    brokerd.configure(grants, providers)
    await brokerd.start()
    return provider


def living(provider: Provider[Any], value: str) -> Token | None:
    token = provider.ledger.find(value)
    return token if token is not None and token.alive(provider.settings.now()) else None


@pytest.mark.parametrize("name", sorted(GALLERY))
async def test_a_recipe_lives_from_its_first_token_to_its_revocation(
    name: str, brokerd: Brokerd, serving: Serving
) -> None:
    provider = await start(brokerd, serving, name)
    if name == "gitlab":
        await brokerd.call("import", grant="app", refresh_token=provider.new_refresh_token("bot").value)
    first = await brokerd.get("app")
    held = living(provider, first)
    assert held is not None
    status = await brokerd.status("app")
    assert held.expires_at is not None
    assert status["expires_at"] == pytest.approx(held.expires_at, abs=2)

    await brokerd.call("refresh", grant="app")
    second = await brokerd.get("app")
    assert living(provider, second) is not None
    assert (second == first) == (name in EXTENDED)
    assert (await brokerd.status("app"))["renewals"] == 2
    assert provider.counts.reused == 0

    done = await brokerd.call("revoke", grant="app")
    assert (done["stored"], done["provider"]) == (True, TOLD_AS.get(name, "told")), done
    assert (living(provider, second) is None) == TOLD.get(name, True)
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert [secret for secret in (*SECRETS, *provider.ledger.tokens) if secret in brokerd.log] == []


async def test_a_vault_token_that_was_imported_is_extended(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Vault())
    brokerd.configure({"app": {"provider": "it"}}, {"it": at(provider)})
    await brokerd.start()
    token = provider.periodic()
    await brokerd.call("import", grant="app", refresh_token=token)
    assert await brokerd.get("app") == token
    assert provider.counts.renewed == 1


# -- real servers


def django(server: SimpleJwt, name: str, path: str) -> Table:
    return {"dialect": name, "base_url": server.url + path, "ca_file": server.ca_file}


@pytest.mark.real
async def test_knox_lets_a_token_in_until_its_logout(brokerd: Brokerd, real_simplejwt: SimpleJwt) -> None:
    alice = {"username": "alice", "password": real_simplejwt.users["alice"]}
    grants: dict[str, Table] = {
        "alice": {"provider": "knox", "credentials": alice},
        "wrong": {"provider": "knox", "credentials": {**alice, "password": "test-only-wrong"}},
    }
    brokerd.configure(grants, {"knox": django(real_simplejwt, "knox", "/knox")})
    await brokerd.start()

    def status_of(token: str) -> int:
        return real_simplejwt.send("GET", "/knox/me/", headers={"Authorization": f"Token {token}"}).status

    got = await brokerd.call("get", grant="alice")
    assert got["present"] == "Authorization: Token {access_token}"
    assert got["expires_at"] - (await brokerd.status("alice"))["issued_at"] == pytest.approx(60, abs=1)
    await brokerd.call("refresh", grant="alice")
    second = await brokerd.get("alice")
    assert second != got["value"]
    assert (status_of(got["value"]), status_of(second)) == (200, 200)
    error = await brokerd.error("get", grant="wrong")
    assert (error["code"], "401: Invalid username/password" in error["message"]) == ("misconfigured", True)

    assert (await brokerd.call("revoke", grant="alice"))["provider"] == "told"
    assert (status_of(got["value"]), status_of(second)) == (401, 401)


@pytest.mark.real
async def test_the_recipe_of_simplejwt_speaks_to_simplejwt(brokerd: Brokerd, real_simplejwt: SimpleJwt) -> None:
    alice = {"username": "alice", "password": real_simplejwt.users["alice"]}
    grant: Table = {"provider": "simplejwt", "credentials": alice}
    brokerd.configure({"alice": grant}, {"simplejwt": django(real_simplejwt, "simplejwt", "")})
    await brokerd.start()
    first = await brokerd.get("alice")
    await brokerd.call("refresh", grant="alice")
    second = await brokerd.get("alice")
    assert second != first
    headers = {"Authorization": f"Bearer {second}"}
    assert real_simplejwt.send("GET", "/me/", headers=headers).json() == {"user": "alice"}
    assert (await brokerd.call("revoke", grant="alice"))[
        "provider"
    ] == "partly"  # of the refresh token: JWTs live until they end


def test_every_recipe_has_a_server_here_or_in_the_tests_of_the_five() -> None:
    elsewhere = {"click2mail", "ix-api", "occam", "treezor"}
    recipes = {path.stem for path in BUILT_IN_RECIPES.glob("*.toml")}
    assert recipes == {*GALLERY, "knox", "simplejwt", *elsewhere}
