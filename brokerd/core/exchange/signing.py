# Signs for providers: assertions (RFC 7523), DPoP proofs (RFC 9449), and what recipes sign. Pure: time and chance come
# through the ports. Keys are Secrets: PEM, or a shared secret for the HS algorithms. No error shows a key.
from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
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

from brokerd.core.ports import Clock, Entropy
from brokerd.core.secret import Secret

ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA", "HS256")
LIFETIME = 60.0  # seconds that an assertion lives: enough for a slow network
BACKDATED = 60  # seconds: a server whose clock is behind ours refuses an assertion from the future
LONGEST = 3_600  # seconds from `iat` to `exp`: Google and others accept no more
PROOF_ALGORITHM = "ES256"
WEAKEST_RSA = 2048  # bits
SHORTEST_SECRET = 32  # bytes, for HS256
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


class UnusableKey(Exception):
    """The key cannot sign like that. The text says what was expected, and nothing of the key."""


class Signer:
    """Signs with the keys that it is given. Blocks for milliseconds at most."""

    __slots__ = ("_clock", "_entropy")

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy

    def now(self) -> int:
        """Unix seconds, as `iat` and `exp` want them."""
        return int(self._clock.now().wall)

    def unique(self) -> str:
        """A `jti`: never the same twice."""
        return self._entropy.bytes(16).hex()

    def assertion(
        self,
        claims: Mapping[str, object],
        key: Secret,
        algorithm: str,
        *,
        key_id: str | None = None,
        lifetime: float = LIFETIME,
    ) -> Secret:
        """A signed JWT with `iat`, `exp` and `jti` added to the claims (RFC 7523 §3). Raises UnusableKey."""
        now = self.now()
        issued = now - BACKDATED
        dated = {"iat": issued, "exp": min(now + int(lifetime), issued + LONGEST), "jti": self.unique(), **claims}
        return _signed(dated, key, algorithm, {"kid": key_id} if key_id else {})

    def new_key(self) -> Secret:
        """A private key for proofs, in PEM: on P-256, which every server with DPoP accepts."""
        number = int.from_bytes(self._entropy.bytes(40)) % (ORDER - 1) + 1
        made = ec.derive_private_key(number, ec.SECP256R1())
        return Secret(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def proof(
        self,
        key: Secret,
        method: str,
        url: str,
        *,
        nonce: str | None = None,
        access_token: Secret | None = None,
        at: float | None = None,
    ) -> Secret:
        """A DPoP proof (RFC 9449 §4.2) for one request to `url`, without its query and fragment. With `access_token` it
        is a proof for a resource server (§4.3). `at`: the server's time in Unix seconds, if it differs from ours. A
        proof is not backdated: servers accept one for some seconds only (Keycloak 25, Curity 10). Raises
        UnusableKey."""
        claims: dict[str, object] = {
            "htm": method,
            "htu": url.split("#", 1)[0].split("?", 1)[0],
            "iat": self.now() if at is None else int(at),
            "jti": self.unique(),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        if access_token is not None:
            claims["ath"] = _base64(hashlib.sha256(access_token.reveal().encode("ascii")).digest())
        return _signed(claims, key, PROOF_ALGORITHM, {"typ": "dpop+jwt", "jwk": public_jwk(key)})


def public_jwk(key: Secret) -> dict[str, str]:
    """The public half of a P-256 key as a JWK (RFC 7518 §6.2.1). Raises UnusableKey."""
    private = _private(key)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UnusableKey("expected an EC key on P-256 for DPoP")
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"kty": "EC", "crv": "P-256", "x": _base64(point[1:33]), "y": _base64(point[33:])}


def thumbprint(key: Secret) -> str:
    """The key's JWK thumbprint (RFC 7638), which a bound token names as `cnf.jkt`. Raises UnusableKey."""
    canonical = json.dumps(public_jwk(key), sort_keys=True, separators=(",", ":"))
    return _base64(hashlib.sha256(canonical.encode()).digest())


def default_algorithm(key: Secret) -> str:
    """The algorithm for a private key if none is configured. Raises UnusableKey."""
    match _private(key):
        case ec.EllipticCurvePrivateKey():
            return "ES256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
        case _:
            return "RS256"


def check_key(key: Secret, algorithm: str) -> None:
    """Whether the key can sign like that. Raises UnusableKey."""
    _usable(key, algorithm)


def _signed(claims: Mapping[str, object], key: Secret, algorithm: str, headers: Mapping[str, object]) -> Secret:
    try:
        return Secret(jwt.encode(dict(claims), _usable(key, algorithm), algorithm, headers=dict(headers)))
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise UnusableKey(f"cannot sign with {algorithm}: {type(error).__name__}") from None


def _usable(key: Secret, algorithm: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519 | str:
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


def _base64(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


Ed25519 = ed25519.Ed25519PrivateKey
