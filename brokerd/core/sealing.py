# Seals what the store keeps (law 15): AES-256-GCM under a data key, which a key-encryption key wraps. It knows neither
# files nor tables: the caller says to which place a sealed piece is bound.
from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokerd.core.ports import Entropy

KEY_BYTES = 32
NONCE_BYTES = 12
SEALS_PER_KEY = 2**30  # random nonces of 96 bits: below this a collision is less likely than 2^-36 (SP 800-38D, 8.3)
FORMAT = 1
HEADER_BYTES = 5  # the format and the data key's id


class EnvelopeError(Exception):
    """A sealed piece does not open: the key is wrong, its bytes were changed, or it was moved to another place."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a sealed record is bound to (its associated data). If it is moved to another place, it does not open."""

    store: str
    grant: str
    generation: int
    fingerprint: str

    def data(self, key_id: int) -> bytes:
        return msgspec.msgpack.encode(
            ("brokerd record", FORMAT, key_id, self.store, self.grant, self.generation, self.fingerprint)
        )


def fingerprint(identity: tuple[str, ...]) -> str:
    """A hash of what a grant's tokens belong to (law 15), as 32 hexadecimal digits."""
    return hashlib.sha256(msgspec.msgpack.encode(identity)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class BoundKey:
    """What a value of a fleet is bound to: the fleet, and the key in etcd that has it."""

    store: str
    key: bytes

    def data(self, key_id: int) -> bytes:
        return msgspec.msgpack.encode(("brokerd fleet value", FORMAT, key_id, self.store, self.key))


class Keyring:
    """The store's data keys, unwrapped. `current` seals; each of them opens what was sealed under it."""

    __slots__ = ("_ciphers", "_entropy", "current")

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._ciphers: dict[int, AESGCM] = {}
        self.current = 0

    def __repr__(self) -> str:
        return f"Keyring(keys={sorted(self._ciphers)}, current={self.current})"

    def add(self, key_id: int, key: bytes) -> None:
        self._ciphers[key_id] = AESGCM(key)
        self.current = max(self.current, key_id)

    @property
    def ids(self) -> list[int]:
        return sorted(self._ciphers)

    def remove(self, key_id: int) -> None:
        """Drop a key that was never used, or is not used any more."""
        del self._ciphers[key_id]
        self.current = max(self._ciphers, default=0)

    def seal(self, plain: bytes, bound: Bound | BoundKey) -> bytes:
        """`plain`, sealed: one byte format, four bytes key id, nonce, ciphertext with tag."""
        nonce = self._entropy.bytes(NONCE_BYTES)
        key_id = self.current
        sealed = self._ciphers[key_id].encrypt(nonce, plain, bound.data(key_id))
        return bytes((FORMAT,)) + key_id.to_bytes(4, "big") + nonce + sealed

    def open(self, sealed: bytes | str, bound: Bound | BoundKey) -> bytes:
        """What was sealed. Raises EnvelopeError."""
        key_id = key_id_of(sealed)
        if key_id is None or not isinstance(sealed, bytes) or len(sealed) < HEADER_BYTES + NONCE_BYTES:
            raise EnvelopeError("it is not in a form that this version of brokerd seals")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise EnvelopeError(f"it was sealed under data key {key_id}, which is not in the store")
        nonce, body = sealed[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES], sealed[HEADER_BYTES + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, bound.data(key_id))
        except InvalidTag:
            raise EnvelopeError("it was changed, or moved here from another place") from None


def key_id_of(sealed: bytes | str) -> int | None:
    """The id of the data key; None: it was not sealed."""
    if not isinstance(sealed, bytes) or len(sealed) < HEADER_BYTES or sealed[0] != FORMAT:
        return None
    return int.from_bytes(sealed[1:HEADER_BYTES], "big")


def name_of_kek(kek: bytes, store: str) -> str:
    """A keyed hash by which a key-encryption key is recognised, only in that store. It does not reveal the key."""
    return hmac.new(kek, f"brokerd key {store}".encode(), hashlib.sha256).hexdigest()[:32]


def wrap(key: bytes, kek: bytes, store: str, key_id: int, entropy: Entropy) -> bytes:
    """A data key, sealed under the key-encryption key for that store."""
    nonce = entropy.bytes(NONCE_BYTES)
    return nonce + AESGCM(kek).encrypt(nonce, key, _wrapping(store, key_id))


def unwrap(wrapped: bytes | str, kek: bytes, store: str, key_id: int) -> bytes:
    """The data key. Raises EnvelopeError when the key-encryption key is not the one that wrapped it."""
    if not isinstance(wrapped, bytes):
        raise EnvelopeError("a data key in the store was changed: it is not bytes")
    try:
        return AESGCM(kek).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _wrapping(store, key_id))
    except (InvalidTag, ValueError):
        raise EnvelopeError("the key is not the one that this store was sealed with") from None


def _wrapping(store: str, key_id: int) -> bytes:
    return msgspec.msgpack.encode(("brokerd data key", FORMAT, store, key_id))
