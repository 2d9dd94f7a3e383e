# What a dialect is to the rest of brokerd, and what it may see of a grant.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from brokerd.core.exchange import Exchange
from brokerd.core.record import AccessToken, Doomed, RefreshToken
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.signing import Signer

DEFAULT_PRESENT = "Authorization: Bearer {access_token}"


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant as its dialect sees it: its credentials, its settings, and its tokens that live. `signer` is
    there for exchanges; where only identity and ability are asked, nothing is signed."""

    credentials: Mapping[str, Secret]
    settings: Mapping[str, object]
    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None
    signer: Signer | None = None

    @property
    def sign(self) -> Signer:
        assert self.signer is not None, "a view without a signer is for questions, not for exchanges"
        return self.signer


class Dialect(Protocol):
    """One provider's way of speaking. Every operation is an exchange that brings at most one set of tokens."""

    @property
    def present(self) -> str:
        """How an application sends the token: a header line with `{access_token}` in it."""
        ...

    def check(self, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
        """Raise ConfigError where a grant with these could never work. The error's key is within the grant."""
        ...

    def identity(self, view: GrantView) -> tuple[str, ...]:
        """What a record is bound to besides the grant's name (law 15): dialect, origins, client, subject and grant
        type. Never a secret: where one of these changes, stored tokens are set aside and not sent."""
        ...

    def ability(self, view: GrantView) -> Ability:
        """What can be done now."""
        ...

    def issue(self, view: GrantView) -> Exchange: ...

    def renew(self, view: GrantView) -> Exchange: ...

    def revoke(self, view: GrantView, token: Doomed) -> Exchange | None:
        """Tell the provider that the token is revoked; None where the provider has no way to be told."""
        ...
