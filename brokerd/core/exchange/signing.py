# Signs for providers: assertions (RFC 7523), DPoP proofs (RFC 9449), and what recipes sign. Pure: time and chance come
# through the ports. Keys are Secrets: PEM, or a shared secret for the HS algorithms. No error shows a key. What uses
# them (signing_keys.py) takes long to import: it is imported with the first key, which the start and a reload check.
from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from brokerd.core.ports import Clock, Entropy
from brokerd.core.secret import Secret

LIFETIME = 60.0  # seconds that an assertion lives: enough for a slow network
BACKDATED = 60  # seconds: a server whose clock is behind ours refuses an assertion from the future
LONGEST = 3_600  # seconds from `iat` to `exp`: Google and others accept no more
PROOF_ALGORITHM = "ES256"


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
        from brokerd.core.exchange.signing_keys import new_key

        return new_key(self._entropy.bytes(40))

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
    from brokerd.core.exchange.signing_keys import public_point

    x, y = public_point(key)
    return {"kty": "EC", "crv": "P-256", "x": _base64(x), "y": _base64(y)}


def thumbprint(key: Secret) -> str:
    """The key's JWK thumbprint (RFC 7638), which a bound token names as `cnf.jkt`. Raises UnusableKey."""
    canonical = json.dumps(public_jwk(key), sort_keys=True, separators=(",", ":"))
    return _base64(hashlib.sha256(canonical.encode()).digest())


def default_algorithm(key: Secret) -> str:
    """The algorithm for a private key if none is configured. Raises UnusableKey."""
    from brokerd.core.exchange import signing_keys

    return signing_keys.default_algorithm(key)


def check_key(key: Secret, algorithm: str) -> None:
    """Whether the key can sign like that. Raises UnusableKey."""
    from brokerd.core.exchange.signing_keys import usable

    usable(key, algorithm)


def _signed(claims: Mapping[str, object], key: Secret, algorithm: str, headers: Mapping[str, object]) -> Secret:
    from brokerd.core.exchange.signing_keys import signed

    return signed(claims, key, algorithm, headers)


def _base64(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
