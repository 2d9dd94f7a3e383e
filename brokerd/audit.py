# What happened to tokens and who asked: each event goes to the log, for people who look now, and to the audit log
# (edge/trail.py), as evidence. Never a token or another secret: fields are names, times, states, cleaned reasons.
from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any, Protocol
from weakref import ref

import structlog

from brokerd.core.chain import LONGEST
from brokerd.core.failure import Failure
from brokerd.core.kind import exchange_event
from brokerd.core.policy import Caller
from brokerd.core.record import AccessToken
from brokerd.core.tally import Counted
from brokerd.core.wanted import Wanted

acting: ContextVar[Caller | None] = ContextVar("acting", default=None)  # on whose word this task does what it does

# By grant: the last fetch of a connection, as it is counted. It keeps no token alive that was dropped.
Told = dict[str, tuple[Counted, ref[AccessToken], Caller, str]]


class Trail(Protocol):
    """Where the audit log is written. `trouble`: why it cannot be."""

    trouble: str | None
    since: float | None

    def again(self, counted: Counted) -> None: ...

    def note(
        self,
        series: str,
        entry: Mapping[str, object],
        who: Hashable = None,
        more: Callable[[], Mapping[str, object]] | None = None,
        *,
        at_once: bool = False,
    ) -> Counted: ...

    def mark(self, token: object, value: str) -> str | None: ...

    async def settle(self) -> None: ...

    async def seal(self) -> str | None: ...


class Audit:
    """Says what happened. Fetches are logged at debug level: they are many, and say what a status can say.

    `required`: without the audit log no token is served.
    """

    def __init__(self, log: Any = None, trail: Trail | None = None, *, required: bool = False) -> None:
        self._log = log or structlog.get_logger("brokerd")
        self._trail = trail
        self._required = required

    @property
    def trouble(self) -> tuple[str | None, float | None]:
        """Why the audit log cannot be written, and since when."""
        return (None, None) if self._trail is None else (self._trail.trouble, self._trail.since)

    @property
    def forbids(self) -> str | None:
        """Why no token may be served now."""
        return self._trail.trouble if self._required and self._trail is not None else None

    async def settled(self) -> None:
        """Wait until everything that was said so far is durable in the audit log, or cannot be."""
        if self._trail is not None:
            await self._trail.settle()

    async def sealed(self) -> str | None:
        """Have the audit log sealed to its end. Why that could not be done, or None."""
        return None if self._trail is None else await self._trail.seal()

    def fetched(
        self,
        grant: str,
        caller: Caller,
        token: AccessToken,
        told: Told,
        ground: Callable[[Caller, str, Wanted | None], str],
        method: str = "get",
        wanted: Wanted | None = None,
    ) -> None:
        """`told`: what was said of this connection's fetches already; `ground`: by what this caller may get it."""
        log = self._log if wanted is None else self._log.bind(variant=str(wanted))
        log.debug("token fetched", grant=grant, **who(caller))
        if self._trail is None:
            return
        known = told.get(grant)
        if known and known[0].is_open and known[1]() is token and known[2] is caller and known[3] == method:
            self._trail.again(known[0])
            return
        mark = self._trail.mark(token, token.value.reveal())
        entry = {"event": method, "outcome": "served", "grant": grant, "token": mark, "who": evidence(caller)}
        if wanted is not None:
            entry["variant"] = str(wanted)
        counted = self._trail.note("audit", entry, caller.uid, lambda: {"allowed_by": ground(caller, grant, wanted)})
        told[grant] = (counted, ref(token), caller, method)

    @contextlib.contextmanager
    def asked(self, method: str, grant: str | None, caller: Caller) -> Iterator[None]:
        """Somebody asked for something that they may have: where that fails it is told."""
        try:
            yield
        except Failure as failure:
            self._failed(method, grant, caller, str(failure.code), failure.message)
            raise

    def _failed(self, method: str, grant: str | None, caller: Caller, outcome: str, reason: str) -> None:
        self._log.debug("request failed", method=method, grant=grant, outcome=outcome, reason=reason, **who(caller))
        about = None if grant is None else grant[:LONGEST]  # while it is locked, whatever the caller names
        self._note("audit", {"event": method, "outcome": outcome, "grant": about, "reason": reason}, caller)

    def denied(self, method: str, grant: str, caller: Caller, reason: str) -> None:
        self._log.warning("denied", method=method, grant=grant, reason=reason, **who(caller))
        self._note("denied", {"event": method, "outcome": "denied", "grant": grant, "reason": reason}, caller)

    def rejected(self, what: str, caller: Caller | None = None, **details: object) -> None:
        """What is not even a request: apart, like denials, so that a flood of it pushes nothing else out."""
        self._log.warning(what, **details, **({} if caller is None else who(caller)))
        self._note("denied", {"event": what, "outcome": "rejected", **details}, caller)

    def exchanged(
        self,
        grant: str,
        provider: str,
        operation: str,
        outcome: str,
        *,
        token: AccessToken | None = None,
        **details: object,
    ) -> None:
        """`token`: the one that it brought."""
        say = self._log.info if outcome in ("issued", "done") else self._log.warning
        event = exchange_event(operation, outcome)
        say(event, grant=grant, provider=provider, operation=operation, outcome=outcome, **details)
        if token is not None and self._trail is not None:
            details["token"] = self._trail.mark(token, token.value.reveal())
        about = {"grant": grant, "provider": provider, "operation": operation}
        self._note("audit", {"event": event, "outcome": outcome, **about, **details}, acting.get())

    def said(self, what: str, **details: object) -> None:
        self._log.info(what, **details)
        self._note("audit", {"event": what, **details}, acting.get())

    def said_at_once(self, what: str, **details: object) -> None:
        """The same, as a line of its own, written now and not with the next group: no crash loses it."""
        self._log.info(what, **details)
        self._note("audit", {"event": what, **details}, acting.get(), at_once=True)

    def warned(self, what: str, **details: object) -> None:
        self._log.warning(what, **details)
        self._note("audit", {"event": what, **details}, acting.get())

    def bug(self, what: str, **details: object) -> None:
        """A fault of our own, with its traceback; tracebacks show no values of variables."""
        self._log.error(what, exc_info=True, **details)
        self._note("audit", {"event": what, **details}, acting.get())

    def _note(self, series: str, entry: Mapping[str, object], caller: Caller | None, *, at_once: bool = False) -> None:
        if self._trail is None:
            return
        if caller is None:
            self._trail.note(series, entry, at_once=at_once)
        else:
            self._trail.note(series, {**entry, "who": evidence(caller)}, caller.uid, at_once=at_once)


def who(caller: Caller) -> dict[str, object]:
    """A caller in a line of the log: who it is and, as far as that was looked at, what runs there."""
    read = caller.evidence
    said = {"user": caller.user, "uid": caller.uid, "pid": caller.pid, "unit": read.unit or read.user_unit}
    said |= {"container": read.container, "exe": read.exe}
    return {name: value for name, value in said.items() if value is not None}


def evidence(caller: Any) -> dict[str, object]:
    """Everything that the kernel said of a caller: each of its fields that says something."""
    found = {field.name: getattr(caller, field.name) for field in fields(caller)}
    said = {name: evidence(value) if is_dataclass(value) else value for name, value in found.items()}
    return {name: value for name, value in said.items() if value or type(value) is int}
