# A grant's states and the moves between them, as one table. A move that is not in the table is an error. Whether a
# token is alive is not a state: core/grant/tokens.py computes it.
from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    READY = "ready"
    RENEWING = "renewing"
    RETRYING = "retrying"
    MISCONFIGURED = "misconfigured"
    NEEDS_LOGIN = "needs_login"
    REVOKED = "revoked"


class Trigger(StrEnum):
    BEGIN = "begin"  # an exchange for a token starts
    ISSUED = "issued"  # it brought tokens
    FAILED = "failed"  # the provider or the network: try again later
    REFUSED = "refused"  # a person must change something
    REJECTED = "rejected"  # the refresh token is dead
    DECLINED = "declined"  # a downscoped token is refused; the grant works
    AGAIN = "again"  # a refresh by hand, a reload, or time to look again
    REVOKE = "revoke"
    GRANTED = "granted"  # a login or an import brought a refresh token


class IllegalMove(Exception):
    """A fault of brokerd: the table has no move for this event in this state."""


def move(state: State, event: Trigger, *, can_issue: bool) -> State:
    """The state that `event` leads to. `can_issue`: credentials can bring tokens, without a person."""
    target = MOVES.get((state, event)) or EVERYWHERE.get(event)
    if target is None:
        raise IllegalMove(f"{event} while {state}")
    return target[0] if can_issue else target[-1]


# From a state, by an event, to a state. If there are two, the first one is for grants that can issue.
MOVES: dict[tuple[State, Trigger], tuple[State, ...]] = {
    (State.READY, Trigger.BEGIN): (State.RENEWING,),
    (State.READY, Trigger.AGAIN): (State.READY,),
    (State.RENEWING, Trigger.ISSUED): (State.READY,),
    (State.RENEWING, Trigger.FAILED): (State.RETRYING,),
    (State.RENEWING, Trigger.REFUSED): (State.MISCONFIGURED,),
    (State.RENEWING, Trigger.REJECTED): (State.READY, State.NEEDS_LOGIN),
    (State.RENEWING, Trigger.DECLINED): (State.READY,),
    (State.RENEWING, Trigger.AGAIN): (State.RENEWING,),
    (State.RETRYING, Trigger.BEGIN): (State.RENEWING,),
    (State.RETRYING, Trigger.AGAIN): (State.READY,),
    (State.MISCONFIGURED, Trigger.AGAIN): (State.READY,),
    (State.NEEDS_LOGIN, Trigger.AGAIN): (State.READY, State.NEEDS_LOGIN),
    (State.REVOKED, Trigger.AGAIN): (State.REVOKED,),
}
EVERYWHERE: dict[Trigger, tuple[State, ...]] = {
    Trigger.REVOKE: (State.REVOKED,),
    Trigger.GRANTED: (State.READY,),
}
