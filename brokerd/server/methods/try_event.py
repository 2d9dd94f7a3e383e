# test_event: runs the commands of [[on_event]] for an event that has not happened, so that people know that they work.
from __future__ import annotations

from typing import Any, Protocol

from brokerd.core.alerts import ALERTS
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.server.session import CallerSession


class Commands(Protocol):
    """Those of [[on_event]]."""

    async def test(self, event: Event) -> list[dict[str, object]]: ...


class EventTestMethod:
    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def try_event(self, _session: CallerSession, params: dict[str, Any]) -> object:
        event = next((each for each in ALERTS if each == params["event"]), None)
        if event is None:
            raise Failure(Code.BAD_REQUEST, f"test_event: event: expected one of {', '.join(ALERTS)}")
        return {"event": event, "runs": await self._commands.test(event)}
