# What a line of the log says to do, with what the line is about: the grant instead of GRANT. Pure.
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from brokerd.core.events import Event

PLACES = {"GRANT": "grant", "PID": "pid", "EVENT": "about"}  # in a remedy, and the field that is put there
FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # callers choose names too: nothing else gets into a command


def remedy_for(event: Event, fields: Mapping[str, Any]) -> str | None:
    """The remedy of the event, with what the fields of the line name."""

    def filled(found: re.Match[str]) -> str:
        value = str(fields.get(PLACES[found[0]]) or "")
        return value if FIT.fullmatch(value) else found[0]

    return event.remedy and re.sub(rf"\b({'|'.join(PLACES)})\b", filled, event.remedy)
