# What one exchange is known by everywhere: its ids go to the caller, to the provider, into the log and the audit log.
# And its steps, for whoever follows it (brokerctl trace); steps.py words them. If nobody follows, no step is made.
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import trio

from brokerd.core.exchange import request_ids
from brokerd.core.exchange.outcomes import Issued, Outcome
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import Entropy
from brokerd.core.secret import Secret
from brokerd.telemetry.steps import Step, stage

Follower = Callable[[Step, float, str | None], None]  # a step, when on trio's clock, and the request_id; must not block


@dataclass(eq=False, slots=True)
class Traces:
    """Who follows the exchanges of which grant now."""

    _followers: dict[str, set[Follower]] = field(default_factory=dict)

    def follow(self, grant: str, follower: Follower) -> None:
        self._followers.setdefault(grant, set()).add(follower)

    def unfollow(self, grant: str, follower: Follower) -> None:
        followers = self._followers.get(grant, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(grant, None)

    def is_followed(self, grant: str) -> bool:
        return grant in self._followers

    def note(self, grant: str, make: Callable[[], Step], request_id: str | None = None) -> None:
        """A step of that grant. `make` is called if somebody follows."""
        if followers := self._followers.get(grant):
            step, now = make(), trio.current_time()
            for tell in tuple(followers):
                tell(step, now, request_id)


@dataclass(eq=False, slots=True)
class Trail:
    """One exchange, and all that belongs to it: its request_id, and the provider's own id of its last answer."""

    request_id: str
    grant: str = ""
    traces: Traces = field(default_factory=Traces)
    provider_request_id: str | None = None

    @property
    def ids(self) -> dict[str, str]:
        found = {"request_id": self.request_id, "provider_request_id": self.provider_request_id}
        return {name: value for name, value in found.items() if value is not None}

    def note(self, make: Callable[[], Step]) -> None:
        self.traces.note(self.grant, make, self.request_id)


given: ContextVar[str | None] = ContextVar("given", default=None)  # the id that the caller gave to what this task does
current: ContextVar[Trail | None] = ContextVar("current", default=None)  # the exchange that this task runs


def begun(entropy: Entropy, grant: str, traces: Traces) -> Trail:
    """The trail of an exchange that begins now. It has its caller's id, if the caller gave one."""
    return Trail(given.get() or request_ids.new(entropy), grant, traces)


def note(make: Callable[[], Step]) -> None:
    """A step of this task's exchange."""
    if (trail := current.get()) is not None:
        trail.note(make)


def ids() -> dict[str, str]:
    """What a line of the log about this task says: the ids of its exchange, else that of its caller."""
    if (trail := current.get()) is not None:
        return trail.ids
    return {} if (asked := given.get()) is None else {"request_id": asked}


def request_id() -> str | None:
    """Of the exchange that this task runs."""
    trail = current.get()
    return None if trail is None else trail.request_id


def marked(request: Request, header: str) -> Request:
    """The request with the id of this task's exchange in that header; "": in none. If somebody follows, the HTTP
    client tells how far it has come."""
    if (trail := current.get()) is None:
        return request
    if header and all(name.lower() != header.lower() for name, _ in request.headers):
        request = replace(request, headers=(*request.headers, (header, trail.request_id)))
    if trail.traces.is_followed(trail.grant):
        request = replace(request, notice=lambda name, doing: trail.note(lambda: stage(name, doing)))
    return request


def answered(request: Request, response: Response) -> str | None:
    """The answer may name the id that the provider itself gave to the request; returns it."""
    if (trail := current.get()) is None:
        return None
    headers = dict(reversed(response.headers))  # the first one of a name counts
    trail.provider_request_id = request_ids.of_provider(headers, trail.request_id, request.secrets)
    return trail.provider_request_id


def ended(outcome: Outcome) -> None:
    """An id that shows a token of the answer is dropped."""
    if (trail := current.get()) is None or trail.provider_request_id is None:
        return
    if request_ids.shows(trail.provider_request_id, _values(outcome)):
        trail.provider_request_id = None


def _values(outcome: Outcome) -> Iterator[Secret]:
    """The secrets that it brought; an answer that fails can bring a refresh token too."""
    if isinstance(outcome, Issued):
        yield from outcome.tokens.fields.values()
        tokens = (outcome.tokens.access_token, outcome.tokens.refresh_token)
    else:
        tokens = (getattr(outcome, "refresh_token", None), None)
    yield from (token.value for token in tokens if token is not None)
