# What happened to tokens and who asked: structured log events for now, a log of their own later.
# Never a token or another secret: fields are names, times, states, reasons that were cleaned.
from __future__ import annotations

from typing import Any

import structlog

from brokerd.core.policy import Caller


class Audit:
    """Says what happened. Fetches are said at debug level: they are many, and say what a status can say."""

    def __init__(self, log: Any = None) -> None:
        self._log = log or structlog.get_logger("brokerd")

    def fetched(self, grant: str, caller: Caller, variant: str | None = None) -> None:
        log = self._log if variant is None else self._log.bind(variant=variant)
        log.debug("token fetched", grant=grant, pid=caller.pid, uid=caller.uid, user=caller.user)

    def denied(self, method: str, grant: str, **evidence: object) -> None:
        self._log.warning("denied", method=method, grant=grant, **evidence)

    def exchanged(self, grant: str, provider: str, operation: str, outcome: str, **details: object) -> None:
        say = self._log.info if outcome in ("issued", "done") else self._log.warning
        say("exchange ended", grant=grant, provider=provider, operation=operation, outcome=outcome, **details)

    def said(self, what: str, **details: object) -> None:
        self._log.info(what, **details)

    def warned(self, what: str, **details: object) -> None:
        self._log.warning(what, **details)

    def bug(self, what: str, **details: object) -> None:
        """A fault of our own, with its traceback; tracebacks show no values of variables."""
        self._log.error(what, exc_info=True, **details)
