# The steps of an exchange: what a dialect yields and what it is sent back. Values only; the driver is in broker.
from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from brokerd.core.metadata import Metadata
from brokerd.core.moment import Moment
from brokerd.core.outcome import Outcome
from brokerd.core.secret import Secret

# Seconds that the answer to a request that spends is waited for, unless the configuration says otherwise: who gives up
# sooner may lose a login (law 3).
ANSWER_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Text and bytes in it may hold secrets, so its repr shows method and origin alone.

    `url` is absolute, the query included. `secrets` names every secret that went into it: the provider's text is
    cleared of them before anybody sees it (law 11). `spends` says that a stored token is sent which the answer
    may replace, or a code that works once: such a request travels on a connection of its own (law 3). `guarded`: its
    URL is one that a public server's metadata named, so it goes to public addresses only. `patient`: where no whole
    answer comes the exchange goes on and hears that. `password`: a user's password is in it, which a provider may
    count as a failed login (law 7).
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    secrets: tuple[Secret, ...] = ()
    spends: bool = False
    guarded: bool = False
    patient: bool = False
    password: bool = False

    def __repr__(self) -> str:
        return f"Request({self.method} {'/'.join(self.url.split('/', 3)[:3])})"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer; its repr shows neither headers nor body, for it may echo what was sent. `headers` have
    lower-case names. `sent_at` is when the request left, `at` when the answer came: what the provider issued, it issued
    between the two. `public`: it came from a public address. `cut`: why the body is not whole; only a request that
    spends is answered so, and only with a 2xx, for tokens may be in what came (law 3)."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    sent_at: Moment
    at: Moment
    public: bool = False
    cut: str | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name (given in lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No whole answer came to a patient request."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep so many seconds before the next step."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Discover:
    """The server's metadata, as it is known or learnt anew: the provider holds it for all its grants."""


@dataclass(frozen=True, slots=True)
class TokenOf:
    """The living access token of another grant, as a subject (RFC 8693 §2.1)."""

    grant: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Something for the person who logs in: `shown` to him, `kind` says what it is about (docs/protocol.md). `waits`:
    for what he brings; otherwise the exchange goes on at once."""

    kind: str
    shown: Mapping[str, str | float]
    waits: bool = True


Brought = Mapping[str, Secret]  # what a person brings: anything in it may be a password or a code
Step = Request | Wait | Discover | TokenOf | Ask
# A Request's, a patient Request's, a Discover's, a TokenOf's, an Ask's, a Wait's:
Answer = Response | Unanswered | Metadata | Secret | Brought | None
Exchange = Generator[Step, Answer, Outcome]


Discovery = Generator[Step, Answer, "Metadata | Outcome"]


def answered(request: Request) -> Generator[Step, Answer, Response]:
    """One step: the request and its answer, for `response = yield from answered(request)`."""
    response = yield request
    assert isinstance(response, Response)
    return response


def discovered() -> Generator[Step, Answer, Metadata]:
    """One step: the server's metadata."""
    metadata = yield Discover()
    assert isinstance(metadata, Metadata)
    return metadata


def asked(kind: str, shown: Mapping[str, str | float]) -> Generator[Step, Answer, Brought]:
    """One step: what a person brings."""
    brought = yield Ask(kind, shown)
    assert isinstance(brought, Mapping)
    return brought


def token_of(grant: str) -> Generator[Step, Answer, Secret]:
    """One step: another grant's living access token."""
    token = yield TokenOf(grant)
    assert isinstance(token, Secret)
    return token
