# A grant's access token and refresh token as brokerd keeps them, and whether one is still alive. Pure.
from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct, structs

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment, seconds_until

NO_FIELDS: dict[str, Secret] = {}  # of nearly every token, as one object; nobody changes the fields of a token


class AccessToken(Struct, frozen=True, weakref=True, rename={"lifetime_warning": "odd"}):  # its name in the store
    """A token that is served. `lifetime`: seconds from its issue, None if the provider named none. `jitter`: drawn once
    at its issue, never again (law 6). `lifetime_warning`: why the lifetime that the provider named is hard to
    believe. `fields`: further values that belong to the token and came with it; a token that was replaced has none."""

    value: Secret
    token_type: str
    issued: Moment
    lifetime: float | None
    jitter: float
    id: str | None = None
    scope: tuple[str, ...] | None = None
    lifetime_warning: str | None = None
    fields: dict[str, Secret] = {}

    @property
    def expires(self) -> Moment | None:
        return None if self.lifetime is None else self.issued.after(self.lifetime)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """The long-lived token that brings access tokens. The fields that AccessToken has too mean the same.

    `kept`: a renewal left it unchanged, so a renewal cannot replace it before it ends. If a provider has only one
    token, which a renewal extends, that token is both the access token and the refresh token. `restore`: what the
    request for the grant's next own token must name, because a downscoped token was renewed with this one, and the
    server may have narrowed it. `rejected`: when the provider first rejected it; one more try confirms that (law 4)."""

    value: Secret
    issued: Moment
    lifetime: float | None
    jitter: float
    id: str | None = None
    kept: bool = False
    restore: Target | None = None
    rejected: Moment | None = None

    @property
    def expires(self) -> Moment | None:
        return None if self.lifetime is None else self.issued.after(self.lifetime)


def alive(token: AccessToken | RefreshToken | None, now: Moment, min_ttl: float = 0.0) -> bool:
    """Whether the token lives longer than `min_ttl` seconds (law 5). A token without a known expiry is alive."""
    if token is None:
        return False
    if token.lifetime is None:
        return True
    if (issued := token.issued).boot_id == now.boot_id:  # every get comes here, so no Moment is built
        return issued.boot + token.lifetime - now.boot > min_ttl
    return seconds_until(issued.after(token.lifetime), now) > min_ttl


def usable(token: AccessToken | RefreshToken | None, now: Moment) -> bool:
    """Whether the token may be sent to its provider. That is also true if no clock can tell its age after a reboot (law
    8): serving a token needs certainty, sending it does not, because the provider says whether it is dead."""
    if token is None:
        return False
    undatable = token.issued.boot_id != now.boot_id and not (now.trusted and token.issued.trusted)
    return token.lifetime is None or undatable or alive(token, now)


def new_access_token(tokens: Tokens, at: Moment, jitter: float) -> AccessToken | None:
    """The access token of an answer, which the provider made at `at` or later."""
    if (token := tokens.access_token) is None:
        return None
    rest = (token.id, tokens.scope, token.lifetime_warning, dict(tokens.fields) or NO_FIELDS)
    return AccessToken(token.value, tokens.token_type, at, token.lifetime, jitter, *rest)


def without_fields(token: AccessToken) -> AccessToken:
    """The token as it is remembered when it is served no more."""
    return structs.replace(token, fields={}) if token.fields else token


def with_jitter(token: AccessToken, jitter: float) -> AccessToken:
    """The token, renewed at another moment of its life."""
    return token if token.jitter == jitter else structs.replace(token, jitter=jitter)


def new_refresh_token(token: IssuedToken | None, at: Moment, jitter: float) -> RefreshToken | None:
    return None if token is None else RefreshToken(token.value, at, token.lifetime, jitter, token.id)


def already_expired(lifetime_warning: str | None) -> str:
    """The error for a token that had expired when it came."""
    words = "the provider issued a token that had already expired"
    return words if lifetime_warning is None else f"{words}: {lifetime_warning}"
