# The real daemon at npm's oidc-provider: every way to authenticate a client, discovery, and DPoP. The server refuses
# assertions that come twice, wants nonces in proofs, and has endpoints of their own for mutual TLS.
from __future__ import annotations

import jwt
import pytest

from tests.real.servers import OidcProvider, introspect
from tests.scenario.daemon.harness import Brokerd, Table

pytestmark = pytest.mark.real


def by_issuer(server: OidcProvider, **more: object) -> Table:
    return {"dialect": "oauth2", "issuer": server.issuer, "ca_file": server.ca_file, **more}


def grant(name: str, **more: object) -> Table:
    credentials = {"client_id": name, **more.pop("credentials", {})}  # type: ignore[dict-item]
    return {
        "provider": "op",
        "grant_type": "client_credentials",
        "scope": ["api:read"],
        "credentials": credentials,
        **more,
    }


async def test_auto_takes_what_the_credentials_allow_and_the_server_offers(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    grants = {
        "cc-basic": grant("cc-basic", credentials={"client_secret": real_oidc.clients["cc-basic"].secret}),
        "cc-pkjwt": grant("cc-pkjwt", credentials={"private_key": {"file": real_oidc.folder / "pkjwt.key"}}),
    }
    brokerd.configure(grants, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    for name in grants:
        claims = introspect(real_oidc, await brokerd.get(name))
        assert (claims["active"], claims["client_id"]) == (True, name)


async def test_a_client_shows_who_it_is_by_assertions(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    files = ("pkjwt.key", "pkjwt-rsa.key", "pkjwt-ed.key")
    ec, rsa, ed = ({"private_key": {"file": real_oidc.folder / name}} for name in files)
    secret = {"client_secret": real_oidc.clients["cc-secretjwt"].secret}
    pkjwt: Table = {"client_auth": "private_key_jwt"}
    grants = {
        "es256": grant("cc-pkjwt", credentials=ec, **pkjwt, client_assertion={"key_id": "ec1"}),
        "rs256": grant("cc-pkjwt", credentials=rsa, **pkjwt, client_assertion={"key_id": "rsa1"}),
        "eddsa": grant("cc-pkjwt", credentials=ed, **pkjwt, client_assertion={"key_id": "ed1"}),
        "hs256": grant("cc-secretjwt", credentials=secret, client_auth="client_secret_jwt"),
        "endpoint": grant("cc-pkjwt", credentials=ec, **pkjwt, client_assertion={"audience": "endpoint"}),
        "token-url": grant("cc-pkjwt", credentials=ec, **pkjwt, client_assertion={"audience": real_oidc.token_url}),
    }
    brokerd.configure(grants, {"op": by_issuer(real_oidc)})
    before = len(real_oidc.log.read_text())
    await brokerd.start()
    for name in grants:
        assert introspect(real_oidc, await brokerd.get(name))["active"] is True
        await brokerd.call("refresh", grant=name)  # with another assertion: the server remembers their jti
    assert "grant.error" not in real_oidc.log.read_text()[before:]


@pytest.mark.parametrize(
    ("client", "files", "method"),
    [
        ("cc-mtls-ca", "client", "tls_client_auth"),
        ("cc-mtls-self", "selfclient", "self_signed_tls_client_auth"),
    ],
)
async def test_a_client_shows_who_it_is_by_its_certificate(
    brokerd: Brokerd, real_oidc: OidcProvider, client: str, files: str, method: str
) -> None:
    folder = real_oidc.folder
    provider = by_issuer(real_oidc, cert_file=folder / f"{files}.pem", key_file=folder / f"{files}.key")
    brokerd.configure({"app": grant(client, client_auth=method)}, {"op": provider})
    await brokerd.start()
    claims = introspect(real_oidc, await brokerd.get("app"))
    assert (claims["active"], claims["client_id"]) == (True, client)
    assert "x5t#S256" in claims["cnf"]


@pytest.mark.parametrize("client", ["cc-dpop", "cc-dpop-nonce"])
async def test_tokens_are_bound_to_a_key_that_stays(brokerd: Brokerd, real_oidc: OidcProvider, client: str) -> None:
    secret = {"client_secret": real_oidc.clients[client].secret}
    brokerd.configure({"app": grant(client, dpop=True, credentials=secret)}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    first = introspect(real_oidc, await brokerd.get("app"))
    assert (first["active"], first["token_type"]) == (True, "DPoP")
    await brokerd.kill()
    await brokerd.start()
    await brokerd.call("refresh", grant="app")
    assert introspect(real_oidc, await brokerd.get("app"))["cnf"] == first["cnf"]


async def test_what_was_discovered_outlives_a_restart(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    secret = {"client_secret": real_oidc.clients["cc-basic"].secret}
    brokerd.configure({"app": grant("cc-basic", credentials=secret)}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    await brokerd.get("app")
    asked = discoveries(real_oidc)
    assert asked > 0
    await brokerd.kill()
    await brokerd.start()
    await brokerd.call("refresh", grant="app")
    assert discoveries(real_oidc) == asked
    assert (await brokerd.call("revoke", grant="app"))["provider"] == "told"


def discoveries(server: OidcProvider) -> int:
    return server.log.read_text().count(" discovery ")


async def test_an_issuer_that_is_another_one_than_its_document_says_is_not_believed(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    secret = {"client_secret": real_oidc.clients["cc-basic"].secret}
    provider = {**by_issuer(real_oidc), "issuer": real_oidc.issuer + "/"}
    brokerd.configure({"app": grant("cc-basic", credentials=secret)}, {"op": provider})
    await brokerd.start()
    error = await brokerd.error("get", grant="app")
    assert error["code"] == "misconfigured"
    assert f'names the issuer "{real_oidc.issuer}", expected "{real_oidc.issuer}/"' in error["message"]


def test_the_servers_jwts_are_what_the_tests_take_them_for(real_oidc: OidcProvider) -> None:
    answer = real_oidc.send(
        "POST",
        "/token",
        form={"grant_type": "client_credentials", "resource": "https://api.test/jwt"},
        basic=("cc-basic", real_oidc.clients["cc-basic"].secret or ""),
    )
    assert jwt.get_unverified_header(answer.json()["access_token"])["alg"] == "ES256"
