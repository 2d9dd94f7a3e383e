# Which events run a command of the configuration ([[on_event]]), when, and how a storm of them becomes few runs. Pure.
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from brokerd.core.events import Event
from brokerd.core.remedies import remedy_for
from brokerd.core.shortened import shortened

# What begins and ends. A command that waits for a beginning is not run if the end comes first.
ENDS = {
    Event.PROVIDER_DOWN: Event.PROVIDER_UP,
    Event.STORE_NOT_WRITTEN: Event.STORE_WRITTEN_AGAIN,
    Event.ETCD_AWAY: Event.ETCD_BACK,
    Event.AUDIT_NOT_WRITTEN: Event.AUDIT_WRITTEN_AGAIN,
}
BEGINS = {end: begin for begin, end in ENDS.items()}
# All that a command can be run for. Nothing that a caller can bring about at will is among them.
ALERTS = (
    *(Event.GRANT_NEEDS_LOGIN, Event.RENEWAL_FAILED, Event.STILL_FAILING, Event.EXCHANGE_INTERRUPTED),
    *(Event.LOGIN_ALARM, Event.REVOCATION_NOT_TOLD, Event.STATE_LOST, Event.STATE_KEPT_BY_SYSTEMD),
    *(Event.REFRESH_TOKEN_EXPIRES, Event.CERTIFICATE_EXPIRES, *ENDS, *BEGINS),
    *(Event.STORE_NOT_ADOPTED, Event.ETCD_NOT_ADOPTED, Event.AUDIT_CHANGED, Event.AUDIT_LINES_LOST),
    *(Event.STARTED_LOCKED, Event.NOT_UNLOCKED, Event.NOT_RELOADED, Event.BUG),
)
PROVIDER_AFTER = 600.0  # seconds that a provider is down before a command is run, unless the configuration says else
GAP = 60.0  # seconds between two runs of one command for the same event, at least
NAMES = 20  # grants that a run is told by their names
LONGEST = 500  # characters of a value
FACTS = ("grant", "provider", "since", "reason", "remedy", "path", "expires")


@dataclass(frozen=True, slots=True)
class OnEvent:
    """One [[on_event]] table. `after`: seconds that what has an end must last; None: the default of each event.
    `place`: where it stands, for errors."""

    events: tuple[Event, ...]
    command: tuple[str, ...]
    after: float | None = None
    place: str = field(default="", compare=False)

    def delay(self, event: Event) -> float:
        if event not in ENDS:
            return 0.0
        return self.after if self.after is not None else PROVIDER_AFTER if event is Event.PROVIDER_DOWN else 0.0


class Alert(NamedTuple):
    """An event, and what is known about it: those of FACTS."""

    event: Event
    facts: Mapping[str, str]

    @property
    def subject(self) -> str:
        """What it is about."""
        return self.facts.get("grant") or self.facts.get("provider") or self.facts.get("path") or ""


class Batch(NamedTuple):
    """What one run is for: the first of `number` equal events, and the names of what they are about."""

    first: Alert
    names: tuple[str, ...]
    number: int


@dataclass(slots=True)
class _Collected:
    first: Alert
    due: float
    names: dict[str, None] = field(default_factory=dict)
    number: int = 0


def alert(event: Event, fields: Mapping[str, Any]) -> Alert | None:
    """The alert of a line of the log; None: nobody can be told of it. Its values are printable and cut to length."""
    if event not in ALERTS:
        return None
    found = {"remedy": remedy_for(event, fields), **{name: fields[name] for name in FACTS if name in fields}}
    return Alert(event, {name: _clean(value) for name, value in found.items() if value is not None})


class Waiting:
    """What one command is still to be run for. Seconds are on any clock that only goes forward."""

    def __init__(self, wanted: OnEvent) -> None:
        self._wanted = wanted
        self._collected: dict[tuple[Event, str], _Collected] = {}
        self._begun: set[tuple[Event, str]] = set()  # of what has an end: the beginnings that a run was told of
        self._last: dict[Event, float] = {}

    def add(self, alert: Alert, now: float) -> None:
        event = alert.event
        if event not in self._wanted.events:
            return
        key = (event, alert.subject if event in ENDS or event in BEGINS else "")
        if (begin := BEGINS.get(event)) in self._wanted.events and begin is not None:
            if self._collected.pop((begin, key[1]), None) is not None or (begin, key[1]) not in self._begun:
                return  # it was over before anybody was told
            self._begun.discard((begin, key[1]))
        elif event in ENDS and ENDS[event] in self._wanted.events and key in self._begun:
            return  # it goes on
        due = max(now + self._wanted.delay(event), self._last.get(event, -math.inf) + GAP)
        found = self._collected.setdefault(key, _Collected(alert, due))
        found.number += 1
        if alert.subject and len(found.names) < NAMES:
            found.names[alert.subject] = None

    @property
    def next_at(self) -> float:
        """When the next run is due; infinity: nothing waits."""
        return min((each.due for each in self._collected.values()), default=math.inf)

    def take(self, now: float) -> Batch | None:
        """What a run that begins now is for."""
        key = min(self._collected, key=lambda each: self._collected[each].due, default=None)
        if key is None or self._collected[key].due > now:
            return None
        found = self._collected.pop(key)
        self._last[key[0]] = now
        for (event, _), other in self._collected.items():
            if event is key[0]:
                other.due = max(other.due, now + GAP)
        if key[0] in ENDS:
            self._begun.add(key)
        return Batch(found.first, tuple(found.names), found.number)


def environment(batch: Batch, *, test: bool = False) -> dict[str, str]:
    """The facts, as variables of the command's environment."""
    event, facts = batch.first
    more, subject = batch.number - 1, batch.first.subject
    about = f"{subject}: " if subject else ""
    found = {"event": str(event), "message": f"{about}{event.words}{f' (and {more} more)' if more else ''}", **facts}
    found |= {"more": str(more), "names": " ".join(batch.names)}
    if test:
        found["test"] = "1"
    return {f"BROKERD_{name.upper()}": value for name, value in found.items()}


def _clean(value: object) -> str:
    return shortened("".join(each if each.isprintable() else " " for each in str(value)), LONGEST)
