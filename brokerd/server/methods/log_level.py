# log_level: shows and sets how much the running daemon logs. A restart sets it back, and so does the end of its time.
from __future__ import annotations

import time
from typing import Any

import trio

from brokerd.core.errors import Code, Failure
from brokerd.core.events import LEVELS, Event
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog, utc

LONGEST = 7 * 86_400.0  # seconds; what is to stay longer belongs into the unit


class LogLevelMethod:
    """`at_start`: the level that --log-level named."""

    def __init__(self, events: EventLog, nursery: trio.Nursery) -> None:
        self._events = events
        self._nursery = nursery
        self._at_start = events.level
        self._until: float | None = None  # Unix seconds
        self._timer = trio.CancelScope()

    async def log_level(self, _session: CallerSession, params: dict[str, Any]) -> object:
        level, lasting = params.get("level"), params.get("for")
        if level is not None and level not in LEVELS:
            raise Failure(Code.BAD_REQUEST, f"log_level: level: expected one of {', '.join(LEVELS)}")
        if lasting is not None and (level is None or not 0 < lasting <= LONGEST):
            words = f"log_level: for: expected a level, and more than 0 and at most {LONGEST:.0f} seconds"
            raise Failure(Code.BAD_REQUEST, words)
        if level is not None:
            self._timer.cancel()
            self._until = None if lasting is None else round(time.time() + lasting, 2)
            self._set(level, **({} if self._until is None else {"until": utc(self._until)}))
            if lasting is not None:
                self._timer = trio.CancelScope()
                self._nursery.start_soon(self._set_back, self._timer, lasting)
        return {"level": self._events.level, "at_start": self._at_start, "until": self._until}

    async def _set_back(self, timer: trio.CancelScope, lasting: float) -> None:
        with timer:
            await trio.sleep(lasting)
            self._until = None
            self._set(self._at_start)

    def _set(self, level: str, **until: str) -> None:
        """The line about it is written at the lower of the two levels: the log shows where it became short."""
        before = self._events.level
        is_lower = LEVELS.index(level) < LEVELS.index(before)
        if is_lower:
            self._events.level = level
        self._events.say(Event.LOG_LEVEL_SET, before=before, after=level, **until)
        self._events.level = level
