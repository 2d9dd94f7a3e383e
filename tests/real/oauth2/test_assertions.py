# JWT bearer and token exchange by the real daemon at npm's oidc-provider, which refuses an assertion that comes twice.
from __future__ import annotations

import os
import time
from pathlib import Path

import jwt
import pytest

from tests.real.oauth2.test_client_auth_and_discovery import by_issuer
from tests.real.servers import OidcProvider, introspect
from tests.scenario.daemon.harness import Brokerd, Table

pytestmark = pytest.mark.real


def bearing(server: OidcProvider, client: str, **more: object) -> Table:
    """A service account: it signs for itself who it is."""
    credentials: Table = {"client_id": client, "private_key": {"file": server.folder / "pkjwt.key"}}
    if secret := server.clients[client].secret:
        credentials["client_secret"] = secret
    said = {"issuer": "svc@test", "audience": server.token_url, "key_id": "ec1"}
    return {
        "provider": "op",
        "grant_type": "jwt_bearer",
        "client_auth": server.clients[client].auth,
        "scope": ["api:read"],
        "credentials": credentials,
        "assertion": said,
        **more,
    }


def made_by_others(server: OidcProvider, **claims: object) -> str:
    """What a platform puts into a file: a JWT of its own, short-lived."""
    now = int(time.time())
    said = {"iss": "platform", "sub": "job-1", "aud": server.issuer, "iat": now, "exp": now + 300, **claims}
    key = (server.folder / "pkjwt-rsa.key").read_text()
    return jwt.encode({"jti": os.urandom(9).hex(), **said}, key, "RS256", {"kid": "rsa1"})


def put(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.mark.parametrize("client", ["bearer-public", "bearer-basic"])
async def test_a_service_account_signs_a_new_assertion_each_time(
    brokerd: Brokerd, real_oidc: OidcProvider, client: str
) -> None:
    brokerd.configure({"app": bearing(real_oidc, client)}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    first = await brokerd.get("app")
    assert introspect(real_oidc, first)["scope"] == "api:read"
    await brokerd.call("refresh", grant="app")
    assert await brokerd.get("app") != first


async def test_an_assertion_that_the_server_refuses_is_a_mistake_to_mend(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    said = {"issuer": "svc@test", "audience": "https://another.test", "key_id": "ec1"}
    brokerd.configure({"app": bearing(real_oidc, "bearer-public", assertion=said)}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    error = await brokerd.error("get", grant="app")
    assert error["code"] == "misconfigured"
    assert "jwt-bearer: the provider answered 400 invalid_grant" in error["message"]


async def test_a_subject_token_is_read_again_for_each_exchange(
    brokerd: Brokerd, real_oidc: OidcProvider, tmp_path: Path
) -> None:
    file = put(tmp_path / "identity", made_by_others(real_oidc))
    secret = real_oidc.clients["exchange-basic"].secret
    credentials = {"client_id": "exchange-basic", "client_secret": secret, "subject_token": {"file": file}}
    grant = {"provider": "op", "grant_type": "token_exchange", "scope": ["api:read"], "credentials": credentials}
    brokerd.configure({"app": grant}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    first = await brokerd.get("app")
    put(file, made_by_others(real_oidc))  # as the kubelet does; the server takes none twice
    await brokerd.call("refresh", grant="app")
    assert await brokerd.get("app") != first


async def test_a_client_assertion_is_read_again_for_each_exchange(
    brokerd: Brokerd, real_oidc: OidcProvider, tmp_path: Path
) -> None:
    def signed(**claims: object) -> str:
        return made_by_others(real_oidc, iss="cc-pkjwt", sub="cc-pkjwt", **claims)

    file = put(tmp_path / "identity", signed(exp=int(time.time()) - 3_600))
    credentials = {"client_id": "cc-pkjwt", "client_assertion": {"file": file}}
    grant = {"provider": "op", "grant_type": "client_credentials", "scope": ["api:read"], "credentials": credentials}
    brokerd.configure({"app": grant}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    error = await brokerd.error("get", grant="app")
    assert f"client_assertion ({file}): this JWT expired 3" in error["message"]
    put(file, signed() + "\n")  # some platforms end it with a line break
    await brokerd.call("refresh", grant="app")
    first = await brokerd.get("app")
    assert introspect(real_oidc, first)["client_id"] == "cc-pkjwt"
    put(file, signed())  # the server takes none twice
    await brokerd.call("refresh", grant="app")
    assert await brokerd.get("app") != first
    assert file.read_text() not in brokerd.log


async def test_a_grants_token_is_exchanged_for_anothers(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    secret = real_oidc.clients["exchange-basic"].secret
    base = {"client_id": "cc-basic", "client_secret": real_oidc.clients["cc-basic"].secret}
    grants = {
        "base": {"provider": "op", "grant_type": "client_credentials", "scope": ["api:read"], "credentials": base},
        "app": {
            "provider": "op",
            "grant_type": "token_exchange",
            "subject": {"grant": "base"},
            "scope": ["api:read"],
            "credentials": {"client_id": "exchange-basic", "client_secret": secret},
        },
    }
    brokerd.configure(grants, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    claims = introspect(real_oidc, await brokerd.get("app"))
    assert (claims["active"], claims["client_id"]) == (True, "exchange-basic")


async def test_a_subject_without_a_token_is_the_reason_that_is_said(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    secret = real_oidc.clients["exchange-basic"].secret
    grants = {
        "base": {"provider": "op", "grant_type": "refresh_token", "credentials": {"client_id": "dev-public"}},
        "app": {
            "provider": "op",
            "grant_type": "token_exchange",
            "subject": {"grant": "base"},
            "credentials": {"client_id": "exchange-basic", "client_secret": secret},
        },
    }
    brokerd.configure(grants, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    error = await brokerd.error("get", grant="app", wait=2)
    assert error["code"] == "unavailable"
    assert "it is got with the token of the grant base, which has none now: base needs a login" in error["message"]
