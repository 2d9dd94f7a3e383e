# How a grant is, for people: how bad that is, and in which order grants are shown. brokerctl status and the page agree
# on it. Pure functions over what the method `status` answers about a grant (docs/protocol.md).
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

Grant = Mapping[str, Any]  # one of `grants` in the answer
LOCKED, UNLOCK = "locked", "brokerctl unlock"  # the state of every grant while brokerd is locked, and what ends it


class Tone(StrEnum):
    """How bad a thing is, the worst first. Each has a sign besides its colour."""

    BAD = "bad"  # a person must act, or nothing is served
    WARN = "warn"  # something fails, and tokens are served meanwhile
    GOOD = "good"
    OFF = "off"  # a person switched it off

    @property
    def sign(self) -> str:
        return {"bad": "■", "warn": "▲", "good": "●", "off": "○"}[self]


class Kind(NamedTuple):
    """What people read of a state."""

    tone: Tone
    words: str


KINDS = {  # in the order of the counts
    "ready": Kind(Tone.GOOD, "ready"),
    "renewing": Kind(Tone.GOOD, "renewing"),
    "waiting": Kind(Tone.WARN, "without a token"),
    "retrying": Kind(Tone.WARN, "retrying"),
    "misconfigured": Kind(Tone.BAD, "misconfigured"),
    "needs_login": Kind(Tone.BAD, "needs login"),
    LOCKED: Kind(Tone.BAD, "locked"),
    "revoked": Kind(Tone.OFF, "revoked"),
}
ORDER = tuple(Tone)
PROBLEMS = (Tone.BAD, Tone.WARN)


def kind_of(state: str) -> Kind:
    """A later brokerd may have a state that is not known here."""
    return KINDS.get(state) or Kind(Tone.WARN, state.replace("_", " "))


def shown_state(grant: Grant) -> str:
    """The state, but a renewal that failed before is a retry: it must not look well for the seconds of each try. Nor
    must a grant that works as far as anybody knows and has had no token yet."""
    state = str(grant["state"])
    if state == "renewing" and grant["last_error"]:
        return "retrying"
    return "waiting" if state == "ready" and _is_coming(grant) and grant["issued_at"] is None else state


def serves(grant: Grant, now: float) -> bool:
    """Whether a token is served."""
    ends = grant["expires_at"]
    return grant["issued_at"] is not None and (ends is None or ends > now)


def lacks_token(grant: Grant, now: float) -> bool:
    """Whether it works as far as anybody knows, and serves nothing: brokerd has not come to it yet, or is not let."""
    return _is_coming(grant) and kind_of(grant["state"]).tone is Tone.GOOD and not serves(grant, now)


def _is_coming(grant: Grant) -> bool:
    return grant["state"] == "renewing" or grant["next_renewal_at"] is not None


def tone(grant: Grant, now: float) -> Tone:
    """A grant whose state is good may have a problem all the same."""
    found = kind_of(shown_state(grant)).tone
    if lacks_token(grant, now):
        return Tone.WARN
    if found is Tone.WARN and not serves(grant, now):
        return Tone.BAD
    pending = bool(grant["pending_revocations"])
    if found is Tone.GOOD and (grant["last_error"] or grant["unstored"] or grant["interrupted"] or pending):
        return Tone.WARN
    return Tone.WARN if found is Tone.OFF and pending else found


def order(grant: Grant, now: float) -> tuple[int, bool, str]:
    """The worst first. Of grants that are equally bad, those that serve nothing; then by name."""
    found = tone(grant, now)
    return ORDER.index(found), found is Tone.BAD and serves(grant, now), grant["name"]


def is_problem(grant: Grant, now: float) -> bool:
    return tone(grant, now) in PROBLEMS


def counts(grants: Iterable[Grant]) -> str:
    """ "205 grants: 203 ready, 1 retrying, 1 needs login"."""
    return counted(Counter(map(shown_state, grants)))


def counted(states: Mapping[str, int]) -> str:
    known = (*KINDS, *sorted(states.keys() - KINDS.keys()))
    parts = [f"{states[state]:,} {kind_of(state).words}" for state in known if states.get(state)]
    total = sum(states.values())
    return f"{total:,} grant{'' if total == 1 else 's'}: {', '.join(parts)}" if parts else "no grants"
