# What a caller of a DPoP-bound grant gets: its token and a proof for one request, and never the key (RFC 9449).
from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
import trio
from brokerd_client.blocking import Broker
from brokerd_client.errors import BadRequest

from tests.real.oauth2.test_client_auth_and_discovery import by_issuer, grant
from tests.real.servers import OidcProvider, introspect
from tests.scenario.daemon.harness import Brokerd

pytestmark = pytest.mark.real


async def test_a_caller_gets_proofs_and_not_the_key(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    bound, plain = ({"client_secret": real_oidc.clients[name].secret} for name in ("cc-dpop", "cc-basic"))
    grants = {"app": grant("cc-dpop", dpop=True, credentials=bound), "plain": grant("cc-basic", credentials=plain)}
    brokerd.configure(grants, {"op": by_issuer(real_oidc)})
    await brokerd.start()

    def as_an_application() -> dict[str, str]:
        with Broker(brokerd.socket) as broker:
            with pytest.raises(BadRequest, match="bound to no key"):
                broker.proof("plain", "GET", "https://api.test/x")
            first = broker.proof("app", "GET", "https://api.test/x?a=b", nonce="n-1").header
            again = broker.proof("app", "GET", "https://api.test/x?a=b", nonce="n-1").header
            assert first["DPoP"] != again["DPoP"]
            assert broker.get("app").header == {"Authorization": first["Authorization"]}
            return first

    header = await trio.to_thread.run_sync(as_an_application)
    scheme, _, token = header["Authorization"].partition(" ")
    assert scheme == "DPoP"
    named = jwt.get_unverified_header(header["DPoP"])["jwk"]
    claims = jwt.decode(header["DPoP"], jwt.PyJWK(named, "ES256"), ["ES256"])
    assert (claims["htm"], claims["htu"], claims["nonce"]) == ("GET", "https://api.test/x", "n-1")
    assert claims["ath"] == encoded(hashlib.sha256(token.encode()).digest())
    thumbprint = hashlib.sha256(json.dumps(named, sort_keys=True, separators=(",", ":")).encode()).digest()
    assert introspect(real_oidc, token)["cnf"]["jkt"] == encoded(thumbprint)
    assert "d" not in named


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
