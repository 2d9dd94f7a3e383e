# What a provider's answer means (DESIGN.md 2): data, not exceptions. Every exchange ends in one of these.
# Reasons are words for people and never contain a secret: whoever makes one has cleaned it (core/reason.py).
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from brokerd.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Token:
    """One token as a provider gave it. `lifetime` is in seconds from when the answer came; None: not known. `odd`: why
    what the provider says of the lifetime is hard to believe, in words."""

    value: Secret
    lifetime: float | None = None
    id: str | None = None
    odd: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The one set of tokens that an exchange brings. A refresh token of None means: the old one stays."""

    access_token: Token | None = None
    refresh_token: Token | None = None
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name of a kind of token
    scope: tuple[str, ...] | None = None  # what the provider says it granted; None: it said nothing
    subject: str | None = None  # who logged in, as the provider names him


class Cause(Enum):
    """Why an exchange is to be tried again later. `touched`: a stored token may have been used up by it (law 3).
    `down`: it speaks against the provider as a whole, not against the grant (law 7)."""

    UNREACHABLE = ("unreachable", False, True)  # nothing was sent: DNS, connect, TLS, proxy
    LIMITED = ("limited", False, False)  # 429: the provider refused before looking
    POSTPONED = ("postponed", False, False)  # we did not send: breaker, journal, shutdown
    UNANSWERED = ("unanswered", True, True)  # sent, and no whole answer came
    UNAVAILABLE = ("unavailable", True, True)  # 502, 503, 504
    FAILED = ("failed", True, False)  # any other 5xx
    STRANGE = ("strange", True, False)  # an answer that is not the provider's (law 12)
    UNREADABLE = ("unreadable", True, False)  # a 2xx answer that cannot be used: it may have brought tokens (law 3)
    SILENT = ("silent", True, False)  # a refusal: of whom or what cannot be known (laws 7 and 12)

    def __init__(self, label: str, touched: bool, down: bool) -> None:
        self.label = label
        self.touched = touched
        self.down = down


@dataclass(frozen=True, slots=True)
class Issued:
    """The provider gave tokens."""

    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Done:
    """The provider did what was asked and gave no tokens: a revocation, or its word that a token is active.
    `ends_both`: with the token that it was told of it ended the other kind too."""

    ends_both: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The provider cannot do this, for this token or at all: asking again would change nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The refresh token that was sent is dead, in the provider's own form."""

    reason: str


class Blame(Enum):
    """What the provider refused, as far as its own terms say. Only a refused password is never sent again (law 7)."""

    PASSWORD = "password"  # noqa: S105 - the user's password: it came with the request, and `invalid_grant` answered it
    CLIENT = "client"  # who the client is: its secret, key or assertion
    REQUEST = "request"  # anything else, or unknown


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A person must change something: credentials, client, scope, URL. `after`: seconds the provider asked for."""

    reason: str
    blames: Blame = Blame.REQUEST
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The scope, audience or resource that a variant was asked for is refused. Of the grant it says nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The provider or the network: nothing was learnt about the grant. `after`: seconds the provider asked for.

    `refresh_token`: a good one that came with an answer whose rest cannot be used (law 3). From a 2xx answer
    (UNREADABLE) it replaces the stored one; from any other it is kept beside the stored one and tried first."""

    reason: str
    cause: Cause
    after: float | None = None
    refresh_token: Token | None = None


Outcome = Issued | Done | Unsupported | Rejected | Misconfigured | Declined | RetryLater

# What each is called in metrics and logs.
NAMES: dict[type[Outcome], str] = {
    Issued: "issued",
    Done: "done",
    Unsupported: "unsupported",
    Rejected: "rejected",
    Misconfigured: "misconfigured",
    Declined: "declined",
    RetryLater: "postponed",
}
