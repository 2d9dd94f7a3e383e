# The algorithms that brokerd signs with, and the error about a key that cannot sign. signing.py signs.
from __future__ import annotations

ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA", "HS256")


class UnusableKey(Exception):
    """The key cannot sign like that. The text says what was expected, and nothing of the key."""
