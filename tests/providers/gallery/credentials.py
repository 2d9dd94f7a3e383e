# What the servers of the gallery let in. All of it is obviously fake and opens nothing.
from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

USER, PASSWORD = "test-only-user", "test-only-password with spaces & ünïcode+%41"
EMAIL = "test-only@directus.example"
ROLE_ID, SECRET_ID = "test-only-role-id", "test-only-secret-id"
CLIENT_ID = "test-only-client-id"
KUBE_TOKEN = "test-only-kube-token"


@cache
def app_key() -> rsa.RSAPrivateKey:
    """The GitHub App's key; one for the whole run, as it takes a while to make."""
    return rsa.generate_private_key(65_537, 2_048)


def app_key_pem() -> str:
    """As GitHub hands it out: PKCS #1."""
    return app_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
