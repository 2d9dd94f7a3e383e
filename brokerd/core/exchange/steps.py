# The steps of an exchange: what a dialect yields, and what it gets back. Values only; broker/provider.py runs them.
from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from brokerd.core.exchange.outcomes import Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment

# Seconds that brokerd waits for the answer to a request that sends a stored token, unless the configuration says
# otherwise. Giving up sooner may lose a login (law 3).
ANSWER_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. It may contain secrets, so its repr shows method and origin only.

    `url` is absolute and has the query. `secrets`: every secret in it; they are removed from the provider's text before
    anybody sees it (law 11). `sends_stored`: it sends a stored token that the answer may replace, or a code that works
    once; such a request has a connection of its own (law 3). `guarded`: a public server's metadata named the URL, so it
    may lead to public addresses only. `patient`: if no whole answer comes, the exchange goes on with Unanswered.
    `password`: it contains a user's password, so the provider may count a failed login (law 7). `secret_places`: the
    outermost fields and the headers of the answer, the latter as `header:name`, from which tokens or their further
    values are taken. `notice`: is told how far the HTTP client has come: a name and words. `last_look` is called right
    before the first byte leaves, and may raise StoreUnavailable: then nothing was sent.

    Many attributes: each is a fact about the one request."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    secrets: tuple[Secret, ...] = ()
    sends_stored: bool = False
    guarded: bool = False
    patient: bool = False
    password: bool = False
    secret_places: frozenset[str] = frozenset()
    notice: Callable[[str, str], None] | None = field(default=None, compare=False)
    last_look: Callable[[], None] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"Request({self.method} {'/'.join(self.url.split('/', 3)[:3])})"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer; its repr shows neither headers nor body, for it may echo what was sent. `headers` have
    lower-case names. `sent_at` is when the request left, `at` when the answer came: what the provider issued, it issued
    between the two. `public`: it came from a public address. `cut`: why the body is not whole. It is set only for a 2xx
    answer to a request that sent a stored token, because tokens may be in the part that came (law 3)."""

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
    """The server's metadata, as it is known or as it is now. The provider keeps it for all its grants."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Something for the person who logs in: it is `shown`, and `kind` says what it is about (docs/protocol.md).
    `waits`: the exchange waits for their answer; otherwise it goes on at once."""

    kind: str
    shown: Mapping[str, str | float]
    waits: bool = True


Brought = Mapping[str, Secret]  # what a person entered: each value may be a password or a code
Step = Request | Wait | Discover | Ask
# A Request's, a patient Request's, a Discover's, an Ask's, a Wait's:
Answer = Response | Unanswered | Metadata | Brought | None
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
    """One step: what a person answers."""
    brought = yield Ask(kind, shown)
    assert isinstance(brought, Mapping)
    return brought
