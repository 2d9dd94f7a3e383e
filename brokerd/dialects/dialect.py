# What a dialect does for the rest of brokerd (Dialect), and what it may see of a grant (GrantView).
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.signing import Signer
from brokerd.core.exchange.steps import Discovery, Exchange
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret, SecretSource

DEFAULT_PRESENT = "Authorization: Bearer {access_token}"


@dataclass(frozen=True, slots=True)
class GrantView:
    """What a dialect may see of a grant: its credentials, its settings and its living tokens. Only exchanges have a
    `signer`. `target`: what a downscoped token is for; None: the exchange is for the grant's own token."""

    credentials: Mapping[str, Secret]
    settings: Mapping[str, object]
    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None
    signer: Signer | None = None
    proof_key: Secret | None = None  # of a grant whose tokens are bound to it (RFC 9449)
    nonce: str | None = None  # the server's newest for proofs (RFC 9449 §8)
    target: Target | None = None
    sources: Mapping[str, SecretSource] = field(default_factory=dict)  # of the credentials, for words about them
    fields: Mapping[str, Secret] = field(default_factory=dict)  # of the grant's own last token, alive or not

    @property
    def sign(self) -> Signer:
        assert self.signer is not None, "a view without a signer is for questions, not for exchanges"
        return self.signer


def unsafe(view: GrantView, more: Mapping[str, tuple[str, ...]]) -> str | None:
    """Why the refresh token is not sent for that target; None: it may be. Some servers use the token up before they
    look at the target (npm's oidc-provider, resources), and a caller's mistake would cost the login. So it is sent only
    for what the configuration names: the grant's own values and `more`."""
    assert view.target is not None
    own = view.settings.get("scope")
    if view.target.scope and not (own and view.target.within(own)):
        return "the scope is not part of the scope that the configuration names for the grant"
    for name in ("audience", "resource"):
        value = getattr(view.target, name)
        if value is not None and value not in (view.settings.get(name), *more.get(name, ())):
            return f"the {name} is not one that the configuration names for the grant (variants.{name})"
    return None


@dataclass(frozen=True, slots=True)
class Needs:
    """`rereads`: credentials that other programs renew, so their files are read again before each exchange.
    `proof_key`: tokens are bound to a key that is stored with the grant (RFC 9449). `in_credentials`: the token is
    itself a credential, so it is read again when that may have changed, and not served once that is gone."""

    rereads: frozenset[str] = frozenset()
    proof_key: bool = False
    in_credentials: bool = False


class Dialect(Protocol):
    """How one provider speaks. Every operation is an exchange that brings at most one set of tokens."""

    def present(self, token_type: str) -> str:
        """How an application sends a token of that type: a header line with `{access_token}` in it."""

    def presents(self, _token_type: str) -> bool:
        """Whether brokerd knows how a token of that type is sent."""
        return True

    @property
    def issuer(self) -> str | None:
        """The issuer whose metadata is to be discovered, as configured."""
        return None

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where requests go, as configured, by the names of RFC 8414. The others must be discovered."""

    def check(self, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
        """Raise ConfigError if a grant with these could never work. The error's key is relative to the grant."""

    def identity(self, view: GrantView) -> tuple[str, ...]:
        """What a record is bound to besides the grant's name (law 15): dialect, origins, client, subject and grant
        type, never a secret. If one of these changes, stored tokens are set aside and not sent."""

    def ability(self, view: GrantView) -> Ability:
        """What can be done now."""

    def lacks(self, _view: GrantView) -> str | None:
        """Why the grant can never have this downscoped token; None where it can."""
        return None

    def unrenewable(self, _view: GrantView) -> str | None:
        """Why nothing but a person can replace the living token, and what to do; None: an exchange can."""
        return None

    def needs(self, _settings: Mapping[str, object]) -> Needs:
        """What an exchange of a grant with such settings needs from the rest of brokerd."""
        return Needs()

    def takes_import(self, _settings: Mapping[str, object]) -> bool:
        """Whether a refresh token that was got elsewhere is of use to a grant with such settings."""
        return False

    def fields(self, _settings: Mapping[str, object]) -> tuple[str, ...]:
        """The names of the further values that each of the grant's own tokens has."""
        return ()

    def discover(self, known: Metadata | None) -> Discovery:
        """The provider's metadata, for exchanges that yield `Discover`."""
        raise AssertionError(f"nothing is to be discovered here, and nothing is known: {known}")

    def issue(self, view: GrantView) -> Exchange: ...

    def renew(self, view: GrantView) -> Exchange: ...

    def login(self, view: GrantView) -> Exchange:
        """A person logs in: for grants whose ability says so."""
        raise AssertionError(f"nobody can log in here: {sorted(view.settings)}")

    def revoke(self, view: GrantView, token: PendingRevocation) -> Exchange | None:
        """Revoke the token at the provider; None if the provider has no request for that."""

    def ends_both(self, _token: PendingRevocation) -> bool:
        """Whether the provider ends the other kind of token too when this token is revoked."""
        return False

    def verify(self, _view: GrantView, _token: AccessToken | RefreshToken) -> Exchange | None:
        """Ask the provider whether the token is active: Done, or Rejected. None if the provider has no request for
        that."""
        return None
