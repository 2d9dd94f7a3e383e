# The log: events with fields, one line each, on stderr; under systemd with the journal's priorities.
# What may be in an event is the callers' matter: never a secret.
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)


def set_up(level: str) -> None:
    """Have structlog write to stderr."""
    journal = in_journal()
    before: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if not journal:
        before.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    order = ["timestamp", "level", "event", "grant", "provider"]
    render = structlog.processors.LogfmtRenderer(key_order=order, drop_missing=True, bool_as_flag=False)
    structlog.configure(
        processors=[*before, _for_journal(render) if journal else render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def in_journal() -> bool:
    """Whether stderr goes to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _for_journal(render: Callable[..., str]) -> Callable[..., str]:
    def with_priority(logger: Any, method: str, event: dict[str, Any]) -> str:
        level = event.pop("level", "info")
        return f"<{PRIORITIES.get(level, 6)}>{render(logger, method, event)}"

    return with_priority
