# A grant's states and the moves between them, as one table (DESIGN.md 2); an illegal move is one error.
# Whether a token is alive is no state: it is computed from the record (core/record.py).
from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    READY = "ready"
    RENEWING = "renewing"
    RETRYING = "retrying"
    MISCONFIGURED = "misconfigured"
    NEEDS_LOGIN = "needs_login"
    REVOKED = "revoked"


class Event(StrEnum):
    BEGIN = "begin"  # an exchange for a token starts
    ISSUED = "issued"  # it brought tokens
    FAILED = "failed"  # the provider or the network: try again later
    REFUSED = "refused"  # a person must change something
    REJECTED = "rejected"  # the refresh token is dead
    DECLINED = "declined"  # a variant is refused; the grant is well
    AGAIN = "again"  # a refresh by hand, a reload, or time to look again
    REVOKE = "revoke"
    GRANTED = "granted"  # a login or an import brought a refresh token


class IllegalMove(Exception):
    """A bug: this event has no move from this state."""


def move(state: State, event: Event, *, can_issue: bool) -> State:
    """The state that `event` leads to. `can_issue`: tokens can be had from credentials, without a person."""
    target = MOVES.get((state, event)) or EVERYWHERE.get(event)
    if target is None:
        raise IllegalMove(f"{event} while {state}")
    return target[0] if can_issue else target[-1]


# From a state, by an event, to a state; where there are two, the first if the grant can issue, else the second.
MOVES: dict[tuple[State, Event], tuple[State, ...]] = {
    (State.READY, Event.BEGIN): (State.RENEWING,),
    (State.READY, Event.AGAIN): (State.READY,),
    (State.RENEWING, Event.ISSUED): (State.READY,),
    (State.RENEWING, Event.FAILED): (State.RETRYING,),
    (State.RENEWING, Event.REFUSED): (State.MISCONFIGURED,),
    (State.RENEWING, Event.REJECTED): (State.READY, State.NEEDS_LOGIN),
    (State.RENEWING, Event.DECLINED): (State.READY,),
    (State.RENEWING, Event.AGAIN): (State.RENEWING,),
    (State.RETRYING, Event.BEGIN): (State.RENEWING,),
    (State.RETRYING, Event.AGAIN): (State.READY,),
    (State.MISCONFIGURED, Event.AGAIN): (State.READY,),
    (State.NEEDS_LOGIN, Event.AGAIN): (State.READY, State.NEEDS_LOGIN),
    (State.REVOKED, Event.AGAIN): (State.REVOKED,),
}
EVERYWHERE: dict[Event, tuple[State, ...]] = {
    Event.REVOKE: (State.REVOKED,),
    Event.GRANTED: (State.READY,),
}
