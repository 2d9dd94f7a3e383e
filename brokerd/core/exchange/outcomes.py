# What a provider's answer means, as values, not exceptions. Every exchange ends with one of these. Reasons are words
# for people without secrets: core/exchange/redaction.py removes them first.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from brokerd.core.secret import Secret


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """One token as a provider gave it. `lifetime` is in seconds from when the answer came; None: not known.
    `lifetime_warning`: why the lifetime that the provider named is hard to believe, in words."""

    value: Secret
    lifetime: float | None = None
    id: str | None = None
    lifetime_warning: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The one set of tokens that an exchange brings. A refresh token of None means: the old one stays. `fields`: the
    further values that belong to the access token."""

    access_token: IssuedToken | None = None
    refresh_token: IssuedToken | None = None
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name of a kind of token
    scope: tuple[str, ...] | None = None  # what the provider says it granted; None: it said nothing
    subject: str | None = None  # who logged in, as the provider names them
    fields: Mapping[str, Secret] = field(default_factory=dict)


class Cause(Enum):
    """Why an exchange must be tried again later. `touched`: it may have used up a stored token (law 3). `down`: the
    provider as a whole seems to have failed, not only this grant (law 7)."""

    UNREACHABLE = ("unreachable", False, True)  # nothing was sent: DNS, connect, TLS, proxy
    LIMITED = ("limited", False, False)  # 429: the provider refused before looking
    POSTPONED = ("postponed", False, False)  # we did not send: breaker, journal, shutdown
    UNANSWERED = ("unanswered", True, True)  # sent, and no whole answer came
    UNAVAILABLE = ("unavailable", True, True)  # 502, 503, 504
    FAILED = ("failed", True, False)  # any other 5xx
    STRANGE = ("strange", True, False)  # an answer that is not the provider's (law 12)
    UNREADABLE = ("unreadable", True, False)  # a 2xx answer that cannot be used: it may have brought tokens (law 3)
    SILENT = ("silent", True, False)  # a refusal that does not say what was refused (laws 7 and 12)

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
    """The provider did what was asked and gave no tokens: a revocation, or the answer that a token is active.
    `ends_both`: it also ended the grant's token of the other kind."""

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
    """What the provider refused, if it said so in its own terms. Only a refused password is never sent again (law
    7)."""

    PASSWORD = "password"  # noqa: S105 - the user's password: it came with the request, and `invalid_grant` answered it
    CLIENT = "client"  # who the client is: its secret, key or assertion
    REQUEST = "request"  # anything else, or unknown


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A person must change something: credentials, client, scope, URL, fields. `after`: seconds the provider asked for.
    `refresh_token`: a good one from an answer that lacks a field. It replaces the stored one (law 3)."""

    reason: str
    blames: Blame = Blame.REQUEST
    after: float | None = None
    refresh_token: IssuedToken | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The scope, audience or resource of a downscoped token is refused. This says nothing about the grant."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The provider or the network failed: nothing is known about the grant. `after`: seconds the provider asked for.

    `refresh_token`: a good one from an answer whose rest cannot be used (law 3). From a 2xx answer (UNREADABLE) it
    replaces the stored one; from any other answer it is kept beside the stored one and tried first."""

    reason: str
    cause: Cause
    after: float | None = None
    refresh_token: IssuedToken | None = None


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
