# Providers whose tokens have further values, in a whole brokerd, configured as in examples/: AWS STS, databases behind
# Vault, Salesforce. The values of a caller always belong together, and a grant's token comes by way of another's.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scenario.daemon.harness import CLIENT, Brokerd, Serving, Table, at, ready
from tests.servers import OAuth2, Provider
from tests.servers.gallery import AwsSts, VaultDatabase
from tests.servers.gallery.credentials import ROLE_ARN, ROLE_ID, SECRET_ID, app_key_pem, web_identity
from tests.servers.oauth2 import Settings
from tests.servers.salesforce import CONSUMER, INSTANCE, USER, Salesforce
from tests.servers.tokens import Token

EXAMPLES = Path(__file__).parents[3] / "examples"
P = Any


async def example(brokerd: Brokerd, name: str, url: str, provider: Provider[P], *said: tuple[str, str]) -> None:
    """Run the example of that name at our provider, which stands in for `url`."""
    text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in ((url, provider.base_url), ("/etc/brokerd", str(brokerd.etc)), *said):
        assert old in text, f"{name}.toml does not say {old} any more"
        text = text.replace(old, new)
    own = f'[daemon]\nsocket = "{brokerd.socket}"\nstate_dir = "{brokerd.state}"\nkey = {{ file = "{brokerd.key}" }}\n'
    brokerd.write(text + own)
    await brokerd.start()


def secret(brokerd: Brokerd, name: str, value: str) -> None:
    brokerd.write(value, f"secrets/{name}").chmod(0o600)


def token_of(provider: Provider[P], got: Table) -> Token:
    token = provider.ledger.find(got["value"], "access")
    assert token is not None
    assert token.alive(provider.settings.now())
    return token


# AWS STS


def are_of_one_session(sts: AwsSts, got: Table) -> bool:
    token = token_of(sts, got)
    wanted = {"access_key_id": sts.key_id(token), "secret_access_key": sts.secret_key(token)}
    assert got["expires_at"] == pytest.approx(token.expires_at, abs=2)
    return bool(got["fields"] == wanted)


async def test_the_identity_of_a_file_becomes_a_session_of_aws_and_is_read_again(
    brokerd: Brokerd, serving: Serving
) -> None:
    sts = await serving(AwsSts())
    secret(brokerd, "identity", web_identity(sts.settings.now() - 7_200))
    await example(brokerd, "aws-sts", "https://sts.eu-central-1.amazonaws.example", sts)
    error = await brokerd.error("get", grant="uploads")
    assert error["code"] == "misconfigured"
    assert "400: ExpiredTokenException: Token expired" in error["message"]
    secret(brokerd, "identity", web_identity() + "\n")  # as the kubelet renews it
    await brokerd.call("refresh", grant="uploads")
    assert are_of_one_session(sts, first := await brokerd.call("get", grant="uploads"))
    secret(brokerd, "identity", web_identity(sub="server-2"))
    await brokerd.call("refresh", grant="uploads")
    assert are_of_one_session(sts, second := await brokerd.call("get", grant="uploads"))
    assert second["value"] != first["value"]
    assert [token_of(sts, each).who for each in (first, second)] == ["server-1", "server-2"]
    assert [each for each in (*sts.secret_values(), web_identity(sub="server-2")) if each in brokerd.log] == []


class Idp(OAuth2):
    """Its id_token is one that AWS trusts."""

    @staticmethod
    def further(name: str, token: Token) -> str:
        return web_identity(token.issued_at, sub=f"of-{token.id}")


async def test_the_id_token_of_a_grant_becomes_a_session_of_aws(brokerd: Brokerd, serving: Serving) -> None:
    idp, sts = await serving(Idp(Settings(further=("id_token",)))), await serving(AwsSts())
    uploads: Table = {
        "provider": "aws",
        "credentials": {"web_identity_token": {"grant": "login", "field": "id_token"}},
        "settings": {"role_arn": ROLE_ARN, "role_session_name": "portal"},
    }
    login: Table = {
        "provider": "idp",
        "grant_type": "client_credentials",
        "credentials": CLIENT,
        "fields": ["id_token"],
    }
    brokerd.configure({"uploads": uploads, "login": login}, {"aws": at(sts), "idp": at(idp)})
    idp.down = True
    await brokerd.start()
    error = await brokerd.error("get", grant="uploads")
    assert (error["code"], sts.count()) == ("unavailable", 0)
    assert "it is got with the token of the grant login, which has none now: login" in error["message"]
    idp.down = False
    await brokerd.call("refresh", grant="login")
    await brokerd.until("uploads", ready)  # nobody has to ask for it
    got = await brokerd.call("get", grant="uploads")
    assert are_of_one_session(sts, got)
    identity = token_of(idp, await brokerd.call("get", grant="login"))
    assert token_of(sts, got).who == f"of-{identity.id}"
    uploads["credentials"]["web_identity_token"]["grant"] = "other"  # the session of one identity is not another's
    brokerd.configure({"uploads": uploads, "login": login, "other": login}, {"aws": at(sts), "idp": at(idp)})
    await brokerd.call("reload")
    session = token_of(sts, await brokerd.call("get", grant="uploads"))
    assert session.who == f"of-{token_of(idp, await brokerd.call('get', grant='other')).id}"


# A database behind Vault


async def test_user_and_password_of_a_lease_belong_together_and_every_lease_is_revoked(
    brokerd: Brokerd, serving: Serving
) -> None:
    vault = await serving(VaultDatabase())
    secret(brokerd, "vault", SECRET_ID)
    await example(brokerd, "vault-database", "https://vault.example:8200", vault, ('"brokerd"', f'"{ROLE_ID}"'))

    async def pair() -> tuple[str, str]:
        got = await brokerd.call("get", grant="orders-db")
        assert vault.user_of(got["value"]) == got["fields"]["username"]
        return got["fields"]["username"], got["value"]

    first = await pair()
    await brokerd.call("refresh", grant="orders-db")  # a renewal: the same user, for longer
    assert await pair() == first
    assert (await brokerd.status("orders-db"))["renewals"] == 2
    vault.settings.renewable = False
    vault.lease_ttl = 60.0
    await brokerd.restart()
    assert await pair() == first
    got = await brokerd.call("get", grant="orders-db", refused=first[1])
    assert got["value"] != first[1]
    second = await pair()
    assert second[0] != first[0]
    assert len(vault.leases) == 2

    assert (await brokerd.call("revoke", grant="orders-db"))["provider"] == "told"
    assert [vault.user_of(password) for _, password in (first, second)] == [None, None]
    assert vault.counts.revoked == 2
    assert first[1] not in brokerd.log


async def test_a_lease_that_died_with_the_token_of_vault_is_replaced(brokerd: Brokerd, serving: Serving) -> None:
    vault = await serving(VaultDatabase())
    secret(brokerd, "vault", SECRET_ID)
    await example(brokerd, "vault-database", "https://vault.example:8200", vault, ('"brokerd"', f'"{ROLE_ID}"'))
    first = await brokerd.call("get", grant="orders-db")
    token = vault.ledger.find(await brokerd.get("vault"))
    assert token is not None
    token.revoked = True  # an operator of Vault revoked it, and Vault ends its leases with it
    assert vault.user_of(first["value"]) is None
    second = await brokerd.call("get", grant="orders-db", refused=first["value"])  # the database let nobody in
    assert vault.user_of(second["value"]) == second["fields"]["username"] != first["fields"]["username"]


# Salesforce


async def test_salesforce_says_with_each_token_where_its_api_is(brokerd: Brokerd, serving: Serving) -> None:
    crm = await serving(Salesforce())
    secret(brokerd, "salesforce.pem", app_key_pem())
    said = ('"consumer-key"', f'"{CONSUMER}"')
    await example(brokerd, "salesforce", "https://shop.my.salesforce.example", crm, said)
    first = await brokerd.call("get", grant="crm")
    assert first["fields"] == {"instance_url": crm.instance_of(token_of(crm, first))}
    assert first["fields"]["instance_url"].startswith(INSTANCE)
    assert first["expires_at"] is None
    status = await brokerd.status("crm")
    assert status["next_renewal_at"] - status["issued_at"] == pytest.approx(3_600 * 2 / 3, rel=0.2)
    await brokerd.call("refresh", grant="crm")
    second = await brokerd.call("get", grant="crm")
    assert second["fields"]["instance_url"] == crm.instance_of(token_of(crm, second)) != first["fields"]["instance_url"]
    assert (await brokerd.call("revoke", grant="crm"))["provider"] == "told"
    assert crm.counts.revoked >= 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f'"{USER}"', '"somebody@shop.example"', "400 invalid_grant: user hasn't approved this consumer"),
        ('lifetime = "3m"', 'lifetime = "30m"', "400 invalid_grant: expired authorization code"),
    ],
)
async def test_what_salesforce_refuses_is_said_in_its_words(
    brokerd: Brokerd, serving: Serving, old: str, new: str, message: str
) -> None:
    crm = await serving(Salesforce())
    secret(brokerd, "salesforce.pem", app_key_pem())
    said = (('"consumer-key"', f'"{CONSUMER}"'), (old, new))
    await example(brokerd, "salesforce", "https://shop.my.salesforce.example", crm, *said)
    error = await brokerd.error("get", grant="crm")
    assert (error["code"], message in error["message"]) == ("misconfigured", True), error


async def test_a_refresh_token_of_salesforce_stays_and_brings_the_instance_each_time(
    brokerd: Brokerd, serving: Serving
) -> None:
    crm = await serving(Salesforce())
    grant: Table = {
        "provider": "it",
        "grant_type": "refresh_token",
        "credentials": {"client_id": CONSUMER},
        "fields": ["instance_url"],
        "lifetime": "1h",
    }
    url = f"{crm.base_url}/services/oauth2"
    brokerd.configure({"crm": grant}, {"it": {"dialect": "oauth2", "token_url": f"{url}/token"}})
    await brokerd.start()
    await brokerd.call("import", grant="crm", refresh_token=crm.new_refresh_token(USER).value)
    first = await brokerd.call("get", grant="crm")
    await brokerd.call("refresh", grant="crm")
    second = await brokerd.call("get", grant="crm")
    assert [each["fields"] for each in (first, second)] == [
        {"instance_url": crm.instance_of(token_of(crm, each))} for each in (first, second)
    ]
    assert (crm.counts.issued, crm.ledger.of_kind("refresh")[0].revoked) == (2, False)
