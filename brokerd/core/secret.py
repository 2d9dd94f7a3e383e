# A value that must never be shown: its text form is masked, and only `reveal` gives the value.
# It does not know where secrets come from or where they go.
from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import NoReturn

MASK = "***"


class Secret:
    """Text that is masked in `repr`, `str` and `format`, and cannot be pickled (law 11)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. A review looks at every call."""
        return self._value

    def has_sha256(self, digest: bytes | None) -> bool:
        """Whether it is the text with that SHA-256. The time that this takes says nothing about the text."""
        return digest is not None and hmac.compare_digest(sha256_of(self._value), digest)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def sha256_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def doubts(text: str, *, token: bool = False) -> str | None:
    """What is most likely a mistake in a secret that somebody wrote down, in words that do not show it. `token`: it
    is a token, which has no blanks in it. A key in PEM may have lines and blanks around it."""
    is_pem, inner = "-----BEGIN " in text, text.strip()
    found = ["a byte order mark (BOM) at its beginning"] if text.startswith("\ufeff") else []
    if not is_pem:
        for place, edge in (("beginning", text[:1]), ("end", text[-1:])):
            if edge.isspace():
                found.append(f"{'a line break' if edge in LINE_BREAKS else 'a blank'} at its {place}")
    if token and any(each.isspace() for each in inner):
        found.append("a blank in it")
    return " and ".join(found) or None


LINE_BREAKS = "\r\n"


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret comes from: exactly one of these is set. edge/files/secret_sources.py reads it, but not what comes
    from another grant: broker/grant_tokens.py has that."""

    text: Secret | None = None
    file: str | None = None
    credential: str | None = None  # a systemd credential: a name in $CREDENTIALS_DIRECTORY
    env: str | None = None
    command: tuple[str, ...] | None = None
    grant: str | None = None  # the access token of that grant, or its `field`
    field: str | None = None
