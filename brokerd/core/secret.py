# A value that must never be shown: masked wherever text is made of it, given out by `reveal` alone.
# It knows nothing of where secrets come from or go to.
from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import NoReturn

MASK = "***"


class Secret:
    """Text that is masked in `repr`, `str`, `format` and cannot be pickled; `reveal()` gives it out (law 11)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. Every call is a place to look at in a review."""
        return self._value

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


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is to be had: exactly one of these is set. Reading it is the edge's matter."""

    text: Secret | None = None
    file: str | None = None
    credential: str | None = None  # a systemd credential: a name in $CREDENTIALS_DIRECTORY
    env: str | None = None
    command: tuple[str, ...] | None = None
