# Grants that use every way of client authentication, for the tests of the dialect.
from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brokerd.core.exchange.server_metadata import Metadata
from brokerd.dialects.oauth2.client_auth import METHODS
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import NOW, jwt_of

ISSUER, TOKEN_URL = "https://idp.example", "https://idp.example/token"

KEY = ec.generate_private_key(ec.SECP256R1())

PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

VALUES = {
    "client_id": "client-1",
    "client_secret": "secret-of-client-1-that-is-long-enough",
    "private_key": PEM,
    "client_assertion": jwt_of(),
    "username": "user-1",
    "password": "password-1",
    "assertion": "assertion-1",
    "subject_token": "subject-1",
}

PLACES = {
    name: f"{ISSUER}/{name}"
    for name in ("token_endpoint", "device_authorization_endpoint", "authorization_endpoint", "revocation_endpoint")
}

SERVERS = [OAuth2(token_url=TOKEN_URL), OAuth2(issuer=ISSUER), OAuth2(token_url=TOKEN_URL, issuer=ISSUER)]

DOCUMENTS = [
    Metadata(ISSUER, NOW),
    Metadata(ISSUER, NOW, PLACES, auth_methods=("client_secret_jwt",)),
    Metadata(ISSUER, NOW, PLACES, auth_methods=("tls_client_auth", "none", "unheard_of")),
    Metadata(ISSUER, NOW, PLACES, endpoint_auth_methods={"revocation_endpoint": tuple(METHODS)}),
]
