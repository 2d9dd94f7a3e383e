# Derives a key-encryption key from a passphrase: Argon2id (RFC 9106). The store has the parameters, beside what it
# wraps.
from __future__ import annotations

import os

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from brokerd.core.ports import StoreError
from brokerd.core.sealing import KEY_BYTES
from brokerd.core.secret import Secret

ITERATIONS, LANES, MEMORY = 3, 4, 64 * 1024  # KiB: the second recommendation of RFC 9106 §4; under a second here
MOST = (100, 64, 1024 * 1024)  # a changed store must not make brokerd use up the machine
SALT_BYTES = 16
NAME = "argon2id"


def fresh() -> str:
    """The parameters for a new passphrase, with a new salt."""
    return f"{NAME} {ITERATIONS} {LANES} {MEMORY} {os.urandom(SALT_BYTES).hex()}"


def derive(passphrase: Secret, how: str) -> bytes:
    """The key. Blocking: it takes most of a second. `how` comes from `fresh`; raises StoreError if it was changed."""
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
