# The log: events with fields, one line each, on stderr; where that is the journal, as the journal's own messages.
# The callers decide what is in an event: never a secret.
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

from brokerd.core.kind import Kind, kind_of
from brokerd.edge.journal import Fields, Journal

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}  # sd-daemon(3)
SEARCHED = ("grant", "provider")  # fields of the journal, in capitals; the others stand in the message alone
ORDER = ["timestamp", "level", "event", *SEARCHED]


class Log:
    """Where this process says what happens: structlog's logger as well."""

    def __init__(self, level: str) -> None:
        self._journal = Journal() if in_journal() else None
        render = structlog.processors.LogfmtRenderer(key_order=ORDER, drop_missing=True, bool_as_flag=False)
        before: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info, _printable]
        if self._journal is None:
            before.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        structlog.configure(
            processors=[*before, render if self._journal is None else _for_journal(render)],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr) if self._journal is None else lambda *_: self,
            cache_logger_on_first_use=True,
        )

    def msg(self, **fields: str) -> None:
        assert self._journal is not None, "without a journal, structlog prints"
        self._journal.say(fields)

    debug = info = warning = error = critical = msg

    def cannot_start(self, words: str) -> None:
        """The last words of a daemon that ends before it has served."""
        if self._journal is None:
            print(f"brokerd: {words}", file=sys.stderr)  # noqa: T201
        else:
            self._journal.say(_fields(f"brokerd cannot start: {words}", "error", Kind.NOT_STARTED))

    def close(self) -> None:
        """At the end of the process."""
        if self._journal is not None:
            self._journal.close()


def in_journal() -> bool:
    """Whether stderr goes to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Callers and providers choose some of the words: none of them may steer the terminal of who reads the log. An
    empty list says nothing and is left out."""
    return {name: _words(each) for name, each in event.items() if each not in ([], ())}


def _words(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(_escaped(str(each)) for each in value)
    return _escaped(value) if isinstance(value, str) else value


def _escaped(text: str) -> str:
    """Line breaks stay, which a traceback has: the renderer writes them as \\n."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def _for_journal(render: Callable[..., str]) -> Callable[..., Fields]:
    def fields(logger: Any, method: str, event: dict[str, Any]) -> Fields:
        kind = kind_of(event)
        level = event.pop("level")
        searched = {name.upper(): str(event[name]) for name in SEARCHED if event.get(name) is not None}
        return {**_fields(render(logger, method, event), level, kind), **searched}

    return fields


def _fields(message: str, level: str, kind: Kind | None) -> Fields:
    fields = {"MESSAGE": message, "PRIORITY": PRIORITIES[level], "SYSLOG_IDENTIFIER": "brokerd"}
    return fields if kind is None else {**fields, "MESSAGE_ID": kind}
