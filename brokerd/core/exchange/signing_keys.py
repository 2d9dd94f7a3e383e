# Private keys as cryptography and PyJWT use them: making, checking, signing. Both take long to import, so signing.py
# imports this module when the first key is there: most installations have none.
from __future__ import annotations

from collections.abc import Mapping

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from brokerd.core.exchange.algorithms import ALGORITHMS, UnusableKey
from brokerd.core.secret import Secret

WEAKEST_RSA = 2048  # bits
SHORTEST_SECRET = 32  # bytes, for HS256
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def new_key(chance: bytes) -> Secret:
    """A private key on P-256, in PEM, from 40 bytes of chance."""
    made = ec.derive_private_key(int.from_bytes(chance) % (ORDER - 1) + 1, ec.SECP256R1())
    return Secret(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def public_point(key: Secret) -> tuple[bytes, bytes]:
    """The coordinates x and y of a P-256 key's public half. Raises UnusableKey."""
    private = _private(key)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UnusableKey("expected an EC key on P-256 for DPoP")
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point[1:33], point[33:]


def default_algorithm(key: Secret) -> str:
    """The algorithm for a private key if none is configured. Raises UnusableKey."""
    match _private(key):
        case ec.EllipticCurvePrivateKey():
            return "ES256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
        case _:
            return "RS256"


def signed(claims: Mapping[str, object], key: Secret, algorithm: str, headers: Mapping[str, object]) -> Secret:
    """A JWT of the claims. Raises UnusableKey."""
    try:
        return Secret(jwt.encode(dict(claims), usable(key, algorithm), algorithm, headers=dict(headers)))
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise UnusableKey(f"cannot sign with {algorithm}: {type(error).__name__}") from None


def usable(key: Secret, algorithm: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519 | str:
    """What signs like that. Raises UnusableKey."""
    if algorithm == "HS256":
        if (found := len(key.reveal().encode())) < SHORTEST_SECRET:
            words = f"HS256 wants a secret of {SHORTEST_SECRET} bytes or more (RFC 7518 §3.2), found {found}"
            raise UnusableKey(f"{words}; let the server make a longer one, or use client_secret_basic")
        return key.reveal()
    private = _private(key)
    match algorithm:
        case "ES256" if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
            return private
        case "RS256" | "PS256" if isinstance(private, rsa.RSAPrivateKey):
            if private.key_size < WEAKEST_RSA:
                raise UnusableKey(f"expected an RSA key of {WEAKEST_RSA} bits or more, found {private.key_size}")
            return private
        case "EdDSA" if isinstance(private, Ed25519):
            return private
        case "ES256" | "RS256" | "PS256" | "EdDSA":
            expected = {"ES256": "an EC key on P-256", "EdDSA": "an Ed25519 key"}.get(algorithm, "an RSA key")
            raise UnusableKey(f"expected {expected} for {algorithm}, found {_kind(private)}")
        case _:
            raise UnusableKey(f"expected an algorithm of {', '.join(ALGORITHMS)}, found {algorithm[:20]!r}")


def _private(key: Secret) -> object:
    try:
        return load_pem_private_key(key.reveal().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        words = "expected a private key in PEM without a password (-----BEGIN PRIVATE KEY-----)"
        raise UnusableKey(words) from None


def _kind(private: object) -> str:
    match private:
        case ec.EllipticCurvePrivateKey():
            return f"an EC key on {private.curve.name}"
        case rsa.RSAPrivateKey():
            return "an RSA key"
        case ed25519.Ed25519PrivateKey():
            return "an Ed25519 key"
        case _:
            return "a key of another kind"


Ed25519 = ed25519.Ed25519PrivateKey
