# A key-encryption key of a passphrase: Argon2id (RFC 9106). How it is derived lies in the store, beside what it wraps.
from __future__ import annotations

import os

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from brokerd.core.envelope import KEY_BYTES
from brokerd.core.ports import StoreError
from brokerd.core.secret import Secret

ITERATIONS, LANES, MEMORY = 3, 4, 64 * 1024  # KiB: the second recommendation of RFC 9106 §4; under a second here
MOST = (100, 64, 1024 * 1024)  # who tampers with the store must not have us use up the machine
SALT_BYTES = 16
NAME = "argon2id"


def fresh() -> str:
    """How a new passphrase's key is to be derived, with a salt of its own."""
    return f"{NAME} {ITERATIONS} {LANES} {MEMORY} {os.urandom(SALT_BYTES).hex()}"


def derive(passphrase: Secret, how: str) -> bytes:
    """The key. Blocking: it takes most of a second. Raises StoreError where `how` is not what `fresh` gives."""
    try:
        name, *numbers, salt = how.split()
        iterations, lanes, memory = map(int, numbers)
        if name != NAME or any(number > most for number, most in zip((iterations, lanes, memory), MOST, strict=True)):
            raise ValueError
        made = Argon2id(
            salt=bytes.fromhex(salt), length=KEY_BYTES, iterations=iterations, lanes=lanes, memory_cost=memory
        )
    except ValueError:
        words = "how the passphrase's key is derived was changed in the store"
        raise StoreError(f"{words}; restore a copy of the state directory") from None
    return made.derive(passphrase.reveal().encode())
