# What the servers of the gallery let in. All of it is obviously fake and opens nothing.
from __future__ import annotations

import time
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

USER, PASSWORD = "test-only-user", "test-only-password with spaces & ünïcode+%41"
EMAIL = "test-only@directus.example"
ROLE_ID, SECRET_ID = "test-only-role-id", "test-only-secret-id"
CLIENT_ID = "test-only-client-id"
KUBE_TOKEN = "test-only-kube-token"
ROLE_ARN, AWS_AUDIENCE = "arn:aws:iam::000000000000:role/test-only", "sts.amazonaws.com"


@cache
def app_key() -> rsa.RSAPrivateKey:
    """The GitHub App's key; one for the whole run, as it takes a while to make."""
    return rsa.generate_private_key(65_537, 2_048)


def app_key_pem() -> str:
    """As GitHub hands it out: PKCS #1."""
    return app_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def web_identity(now: float | None = None, **claims: object) -> str:
    """A token of the identity provider that the role of ROLE_ARN trusts; it lives for an hour."""
    issued = int(time.time() if now is None else now)
    said = {"iss": "https://idp.example", "sub": "server-1", "aud": AWS_AUDIENCE, "iat": issued, "exp": issued + 3_600}
    return jwt.encode({**said, **claims}, app_key(), "RS256")
