# What a dialect is to the rest of brokerd, and what it may see of a grant.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from brokerd.core.exchange import Discovery, Exchange
from brokerd.core.metadata import Metadata
from brokerd.core.record import AccessToken, Doomed, RefreshToken
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.signing import Signer
from brokerd.core.wanted import Wanted

DEFAULT_PRESENT = "Authorization: Bearer {access_token}"


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant as its dialect sees it: its credentials, its settings, and its tokens that live. `signer` is
    there for exchanges; where only identity and ability are asked, nothing is signed. `wanted`: the variant that it is
    about; None: the grant's own token."""

    credentials: Mapping[str, Secret]
    settings: Mapping[str, object]
    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None
    signer: Signer | None = None
    proof_key: Secret | None = None  # of a grant whose tokens are bound to it (RFC 9449)
    nonce: str | None = None  # the server's newest for proofs (RFC 9449 §8)
    wanted: Wanted | None = None
    sources: Mapping[str, SecretSource] = field(default_factory=dict)  # of the credentials, for words about them

    @property
    def sign(self) -> Signer:
        assert self.signer is not None, "a view without a signer is for questions, not for exchanges"
        return self.signer


def unsafe(view: GrantView, more: Mapping[str, tuple[str, ...]]) -> str | None:
    """Why a refresh token is not asked for that variant; None: it may be. Some servers use it up and then look at what
    was asked for (npm's oidc-provider, resources), so that a caller's slip would cost the login: it is asked only for
    what the configuration says that it is good for, its own and `more`."""
    assert view.wanted is not None
    own = view.settings.get("scope")
    if view.wanted.scope and not (own and view.wanted.within(own)):
        return "the scope is not in what the grant's own scope names in the configuration"
    for name in ("audience", "resource"):
        value = getattr(view.wanted, name)
        if value is not None and value not in (view.settings.get(name), *more.get(name, ())):
            return f"the {name} is not in what the grant's variants.{name} names in the configuration"
    return None


@dataclass(frozen=True, slots=True)
class Needs:
    """`rereads`: credentials whose sources others renew, read again before each exchange. `proof_key`: tokens are bound
    to a key that is kept with the grant (RFC 9449). `subject`: the grant whose token this one's is got with (RFC 8693
    §2.1)."""

    rereads: frozenset[str] = frozenset()
    proof_key: bool = False
    subject: str | None = None


class Dialect(Protocol):
    """One provider's way of speaking. Every operation is an exchange that brings at most one set of tokens."""

    def present(self, token_type: str) -> str:
        """How an application sends a token of that type: a header line with `{access_token}` in it."""
        ...

    def presents(self, _token_type: str) -> bool:
        """Whether it is known how a token of that type is sent."""
        return True

    @property
    def issuer(self) -> str | None:
        """The issuer whose metadata is to be discovered, as configured."""
        return None

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where requests go, as configured, by the names of RFC 8414; what is not there is to be discovered."""
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

    def lacks(self, _view: GrantView) -> str | None:
        """Why there can be no such variant of the grant's token, whatever happens; None where there can."""
        return None

    def needs(self, _settings: Mapping[str, object]) -> Needs:
        """What an exchange of a grant with such settings needs of others."""
        return Needs()

    def discover(self, known: Metadata | None) -> Discovery:
        """What the provider says of itself: for exchanges that yield `Discover`."""
        raise AssertionError(f"nothing is to be discovered here, and nothing is known: {known}")

    def issue(self, view: GrantView) -> Exchange: ...

    def renew(self, view: GrantView) -> Exchange: ...

    def login(self, view: GrantView) -> Exchange:
        """A person logs in: for grants whose ability says so."""
        raise AssertionError(f"nobody can log in here: {sorted(view.settings)}")

    def revoke(self, view: GrantView, token: Doomed) -> Exchange | None:
        """Tell the provider that the token is revoked; None where the provider has no way to be told."""
        ...

    def ends_both(self, _token: Doomed) -> bool:
        """Whether a provider that is told of this token ends the other kind with it."""
        return False

    def verify(self, _view: GrantView, _token: AccessToken | RefreshToken) -> Exchange | None:
        """Ask the provider whether the token is active: Done, or Rejected where it says that it is not. None where the
        provider has no way to be asked."""
        return None
