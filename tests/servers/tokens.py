# The tokens that a provider has issued: who holds them, how long they live, which family they belong to, whether
# they were used or revoked. It knows neither HTTP nor any one API's form.
from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Kind = Literal["access", "refresh"]


@dataclass(eq=False)
class Token:
    """One issued token. Times are the provider's Unix seconds; `expires_at` None: it does not expire."""

    value: str
    kind: Kind
    id: str
    family: int
    who: str
    client: str
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float | None
    audience: tuple[str, ...] = ()  # audience and resource asked for, where the API knows such things
    used_at: float | None = None  # when a refresh replaced it
    revoked: bool = False
    rejected: bool = False  # its holder has been told that it is dead

    def alive(self, now: float) -> bool:
        return not self.revoked and (self.expires_at is None or now < self.expires_at)


class Death(Enum):
    """Why a refresh token is not accepted."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"
    REVOKED = "revoked"


@dataclass(eq=False)
class Ledger:
    """Every token of one provider, dead ones as well."""

    issuer: str
    now: Callable[[], float]
    tokens: dict[str, Token] = field(default_factory=dict)
    families: int = 0

    def family(self) -> int:
        """A new family: the tokens that come of one login, and of each other."""
        self.families += 1
        return self.families

    def add(
        self,
        kind: Kind,
        *,
        family: int,
        who: str,
        client: str = "",
        scopes: Iterable[str] = (),
        expires_at: float | None,
        audience: Iterable[str] = (),
        value: str | None = None,
        token_id: str | None = None,
        padding: int = 0,
    ) -> Token:
        """Issue a token; without `value` it is an opaque one that nobody can take for a real secret, with so many
        characters of padding."""
        number = len(self.tokens) + 1
        token = Token(
            value=value or f"test-only-{self.issuer}-{kind}-{number}-{secrets.token_urlsafe(24)}{'x' * padding}",
            kind=kind,
            id=token_id or f"tok-{kind}-{number}",
            family=family,
            who=who,
            client=client,
            scopes=tuple(scopes),
            issued_at=self.now(),
            expires_at=expires_at,
            audience=tuple(audience),
        )
        self.tokens[token.value] = token
        return token

    def find(self, value: str | None, kind: Kind | None = None) -> Token | None:
        """The token of that value, dead or alive, if it is of that kind."""
        token = self.tokens.get(value or "")
        return token if token is not None and kind in (None, token.kind) else None

    def find_id(self, token_id: str) -> Token | None:
        return next((token for token in self.tokens.values() if token.id == token_id), None)

    def of_kind(self, kind: Kind) -> list[Token]:
        return [token for token in self.tokens.values() if token.kind == kind]

    def revoke_family(self, family: int) -> bool:
        """Kill all tokens of a family; says whether one was still alive."""
        living = [token for token in self.tokens.values() if token.family == family and not token.revoked]
        for token in living:
            token.revoked = True
        return bool(living)
