# The log: one line with fields for each event, on stderr, or as messages of the journal if stderr goes there.
# telemetry/event_log.py decides what an event contains: never a secret.
from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

from brokerd.core.events import Event
from brokerd.core.remedies import remedy_for
from brokerd.edge.systemd.journal import Fields, Journal

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}  # sd-daemon(3)
FORMATS = ("logfmt", "json")
SEARCHED = ("event", "grant", "provider")  # also fields of the journal, in capitals; all others are in the message only
ORDER = ["timestamp", "level", "event", "grant", "provider", "message"]


class Log:
    """The log of this process. It is also the logger that structlog uses for the journal. `level`: lines below it are
    dropped; it can be set at any time."""

    def __init__(self, level: str, program: str = "brokerd", form: str = "logfmt") -> None:
        self.level = level
        self._journal = Journal() if in_journal() else None
        self._program = program
        logfmt = structlog.processors.LogfmtRenderer(key_order=ORDER, drop_missing=True, bool_as_flag=False)
        self._render: Callable[..., Any] = _as_json if form == "json" else logfmt
        steps: list[Any] = [self._passes, _described, structlog.processors.format_exc_info, _printable]
        if self._journal is None:
            steps += [structlog.processors.TimeStamper(fmt="iso", utc=True), self._render]
        else:
            steps.append(self._for_journal)
        structlog.configure(
            processors=steps,
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),  # `_passes` knows the level
            logger_factory=structlog.PrintLoggerFactory(sys.stderr) if self._journal is None else lambda *_: self,
            cache_logger_on_first_use=True,
        )

    def msg(self, **fields: str) -> None:
        assert self._journal is not None, "without a journal, structlog prints"
        self._journal.say({**fields, "SYSLOG_IDENTIFIER": self._program})

    debug = info = warning = error = critical = msg

    def cannot_start(self, words: str) -> None:
        """Say why the program ends before it has served."""
        if self._journal is None and self._render is not _as_json:
            print(f"{self._program}: {words}", file=sys.stderr)  # noqa: T201
        else:
            say(Event.NOT_STARTED, reason=words, remedy=None)

    def close(self) -> None:
        """Call this at the end of the process."""
        if self._journal is not None:
            self._journal.close()

    def _passes(self, _logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if LEVELS.get(method, logging.CRITICAL) < LEVELS[self.level]:
            raise structlog.DropEvent
        return {"level": method, **event}

    def _for_journal(self, logger: Any, method: str, event: dict[str, Any]) -> Fields:
        level, kind = event.pop("level"), event["event"]
        fields = {"MESSAGE": self._render(logger, method, dict(event)), "PRIORITY": PRIORITIES[level]}
        if isinstance(kind, Event) and kind.id is not None:
            fields["MESSAGE_ID"] = kind.id
        searched = {name.upper(): str(event[name]) for name in SEARCHED if event.get(name) is not None}
        return {**fields, **searched}


def say(event: Event, **details: object) -> None:
    """Write an event."""
    getattr(structlog.get_logger(), event.level)(event, **details)


def in_journal() -> bool:
    """Whether stderr goes to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _described(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Add the words of the event, and what to do where the line does not say it."""
    kind = event["event"]
    if isinstance(kind, Event):
        remedy = event.pop("remedy", None) if "remedy" in event else remedy_for(kind, event)
        event = {"message": kind.words, **event, "remedy": remedy}
    return {name: value for name, value in event.items() if value is not None}


def _printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Escape control characters: callers and providers choose some of the texts, and must not control the terminal that
    shows the log. Empty lists are left out."""
    return {name: _words(each) for name, each in event.items() if each not in ([], ())}


def _words(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(_escaped(str(each)) for each in value)
    return _escaped(value) if isinstance(value, str) and not isinstance(value, Event) else value


def _escaped(text: str) -> str:
    """Line breaks stay, because tracebacks have them; the renderer writes them as \\n."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def _as_json(_logger: Any, _method: str, event: dict[str, Any]) -> str:
    first = {name: event[name] for name in ORDER if name in event}
    return json.dumps(first | event, ensure_ascii=False, default=str)
