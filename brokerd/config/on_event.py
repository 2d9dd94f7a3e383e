# The [[on_event]] tables: commands that are run when something is wrong.
from __future__ import annotations

from typing import Any

import msgspec

from brokerd.core.alerts import ALERTS, ENDS, OnEvent
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, convert, expected

MOST = 32  # tables; each has a task


class OnEventFile(msgspec.Struct, forbid_unknown_fields=True):
    events: list[str]
    command: list[str]
    after: Duration | None = None


def read_on_event(place: str, raw: Any) -> OnEvent:
    """Raises ConfigError."""
    table = convert(raw, OnEventFile)
    known = {str(each): each for each in ALERTS}
    if not table.events:
        raise ConfigError(f"expected one event or more; known: {', '.join(known)}", key="events")
    for number, name in enumerate(table.events):
        if name not in known:
            raise ConfigError(f"unknown event; known: {', '.join(known)}", key=f"events[{number}]")
    if not table.command or not table.command[0].startswith("/") or "\0" in "".join(table.command):
        found = table.command[0] if table.command else table.command
        raise expected("an absolute path first, then arguments", found, key="command")
    events = tuple(known[name] for name in dict.fromkeys(table.events))
    if table.after is not None and not any(each in ENDS for each in events):
        words = f"is only for events that end by themselves: {', '.join(ENDS)}; remove it"
        raise ConfigError(words, key="after")
    return OnEvent(events, tuple(table.command), None if table.after is None else float(table.after), place)
