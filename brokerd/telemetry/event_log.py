# What happened, and who asked for it. Each event is written twice: to the log, for people who look now, and to the
# audit log (edge/audit/writer.py), as evidence. No event holds a token or another secret: its fields are names, times,
# states and cleaned reasons.
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import ref

import structlog

from brokerd.core.access.policy import Caller
from brokerd.core.audit.chain import LONGEST
from brokerd.core.audit.deduplication import Clients, Counted
from brokerd.core.errors import Failure
from brokerd.core.events import Event
from brokerd.core.exchange_events import exchange_event
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.repeated_failures import Failing, LineBudget, RepeatedFailures
from brokerd.core.timing.duration import in_words
from brokerd.core.timing.moment import Moment, seconds_until, wall_time
from brokerd.telemetry.recent_events import RecentEvents
from brokerd.telemetry.tracing import Traces, ids

acting: ContextVar[Caller | None] = ContextVar("acting", default=None)  # the caller that asked for what this task does

# A fetch that the audit log has, so that it counts equal ones. It keeps no dropped token alive.
Fetch = tuple[Counted, ref[AccessToken], Caller, str]  # with the method
FETCHES = 4_096  # remembered


class AuditSink(Protocol):
    """Where the audit log is written. `trouble`: why it cannot be written, `since`: since when."""

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
        shown: Mapping[str, object] | None = None,
    ) -> Counted: ...

    def append(self, series: str, entry: Mapping[str, object]) -> None: ...

    def mark(self, token: object, value: str) -> str | None: ...

    async def settle(self) -> None: ...

    async def seal(self) -> str | None: ...


class Output(Protocol):
    """Where the log is written."""

    level: str


class EventLog:
    """Writes events. Fetches are logged at debug level: there are many, and `status` shows the same. `traces`: those
    who follow an exchange.

    `required`: while the audit log cannot be written, no token is served.
    """

    def __init__(
        self,
        log: Any = None,
        audit: AuditSink | None = None,
        *,
        required: bool = False,
        output: Output | None = None,
    ) -> None:
        self._log = log or structlog.get_logger("brokerd")
        self._output = output
        self.noticed: Callable[[Event, Mapping[str, Any]], None] = lambda *_: None  # is given every line
        self._audit = audit
        self._required = required
        self._failures, self._outages = RepeatedFailures(), RepeatedFailures()
        self._lines, self._clients = LineBudget(), Clients()
        self.traces = Traces()
        self.recent = RecentEvents()
        self._fetches: dict[
            tuple[int, str], Fetch
        ] = {}  # the last one, by id() of the caller, whom it keeps, and grant

    @property
    def level(self) -> str:
        """Lines below it are not written."""
        return "info" if self._output is None else self._output.level

    @level.setter
    def level(self, level: str) -> None:
        if self._output is not None:
            self._output.level = level

    @property
    def audit_trouble(self) -> tuple[str | None, float | None]:
        """Why the audit log cannot be written, and since when."""
        return (None, None) if self._audit is None else (self._audit.trouble, self._audit.since)

    @property
    def forbids_serving(self) -> str | None:
        """Why no token may be served now; None: tokens may be served."""
        return self._audit.trouble if self._required and self._audit is not None else None

    async def settled(self) -> None:
        """Wait until every event so far is durable in the audit log, or could not be written."""
        if self._audit is not None:
            await self._audit.settle()

    async def sealed(self) -> str | None:
        """Seal the audit log up to its end. Returns why that could not be done, or None."""
        return None if self._audit is None else await self._audit.seal()

    def fetched(
        self,
        grant: str,
        caller: Caller,
        token: AccessToken,
        ground: Callable[[Caller, str, Target | None], str],
        method: str = "get",
        wanted: Target | None = None,
    ) -> None:
        """A token was served. `ground`: finds the rule that allows it."""
        if self._logs_fetches:
            log = self._log if wanted is None else self._log.bind(variant=str(wanted))
            log.debug(Event.TOKEN_FETCHED, grant=grant, **who(caller))
        if self._audit is None:
            return
        last = self._fetches.get((id(caller), grant))
        if last and last[0].is_open and _is_of(last, token, caller, method):
            self._audit.again(last[0])
            return
        mark = self._audit.mark(token, token.value.reveal())
        entry = {"event": method, "outcome": "served", "grant": grant, "token": mark, "who": evidence(caller)}
        if wanted is not None:
            entry["variant"] = str(wanted)
        counted = self._audit.note("audit", entry, caller.uid, lambda: {"allowed_by": ground(caller, grant, wanted)})
        if len(self._fetches) >= FETCHES:
            self._fetches.clear()
        self._fetches[id(caller), grant] = counted, ref(token), caller, method

    @property
    def _logs_fetches(self) -> bool:
        """Whether a line at debug level would be written: nearly every get asks, so that no line is made in vain."""
        return self._output is None or self._output.level == "debug"

    def fetched_again(self, last: Fetch | None) -> bool:
        """The same token was served once more to the same caller by the same method as `last`, which `counts` was asked
        about. False: that has to be said in another way, by `fetched`."""
        if self._logs_fetches or self.forbids_serving is not None:
            return False
        if self._audit is not None:
            if last is None or not last[0].is_open:
                return False
            self._audit.again(last[0])
        return True

    def last_fetch(self, grant: str, caller: Caller) -> Fetch | None:
        return self._fetches.get((id(caller), grant))

    def counts(self, last: Fetch | None, token: AccessToken, caller: Caller) -> bool:
        """Whether a further get of the token by the caller is one more of `last`."""
        return self._audit is None or (last is not None and _is_of(last, token, caller, "get"))

    def share_ended(self, grant: str, caller: Caller, since: float, reason: str) -> None:
        """A caller could read the grant's token in memory from `since` until now. Which tokens that were, `fetched` was
        told."""
        span = {"from": round(since, 3), "to": round(time.time(), 3)}
        self._log.debug(Event.SHARE_ENDED, grant=grant, reason=reason, **span, **who(caller))
        if self._audit is not None:
            entry = {"event": "share", "outcome": "ended", "grant": grant, "reason": reason, **span}
            self._audit.note("audit", {**entry, "who": evidence(caller)}, caller.uid)

    def proxied(self, grant: str, caller: Caller, client: Mapping[str, object], use: Mapping[str, object]) -> None:
        """A proxy, which is the caller, forwarded requests of a client with the grant's token. Too many entries are
        those of one client: they hide neither another client's nor what the proxy asks for itself."""
        if self._audit is not None:
            entry = {"event": "proxied", "outcome": "served", "grant": grant, **use, "client": dict(client)}
            account = self._clients.account(caller.uid, client.get("uid"), time.monotonic())
            shown = {"who": {"uid": caller.uid}, "client": {} if account is None else {"uid": account}}
            who = ("proxied", caller.uid, account)
            self._audit.note("audit", {**entry, "who": evidence(caller)}, who, shown=shown)

    @contextlib.contextmanager
    def failures_of(self, method: str, grant: str | None, caller: Caller) -> Iterator[None]:
        """Record when a request fails that its caller was allowed to make."""
        try:
            yield
        except Failure as failure:
            self._failed(method, grant, caller, str(failure.code), failure.message)
            raise

    def _failed(self, method: str, grant: str | None, caller: Caller, outcome: str, reason: str) -> None:
        said = {"method": method, "grant": grant, "outcome": outcome, "reason": reason}
        self._log.debug(Event.REQUEST_FAILED, **said, **ids(), **who(caller))
        about = None if grant is None else grant[:LONGEST]  # while brokerd is locked, a caller may write anything here
        self._note(
            "audit", {"event": method, "outcome": outcome, "grant": about, "reason": reason}, caller, is_request=True
        )

    def denied(self, method: str, grant: str, caller: Caller, reason: str) -> None:
        self._write_of_user(Event.DENIED, caller.uid, method=method, grant=grant, reason=reason, **who(caller))
        self._note(
            "denied", {"event": method, "outcome": "denied", "grant": grant, "reason": reason}, caller, is_request=True
        )

    def rejected(self, event: Event, caller: Caller | None = None, **details: object) -> None:
        """Bad input that is no request. It has its own quota, with denials: a flood of it pushes nothing else out."""
        uid = details["uid"] if caller is None else caller.uid
        self._write_of_user(event, uid, **{**details, **({} if caller is None else who(caller))})
        self._note("denied", {"event": event, "outcome": "rejected", **details}, caller, is_request=True)

    def _write_of_user(self, event: Event, uid: Any, /, **details: object) -> None:
        """What callers can bring about has few lines of each user in a minute. The audit log counts the others."""
        left_out = self._lines.left_out(uid, time.monotonic())
        if left_out is None:
            self._log.debug(event, **details, **ids())
        else:
            self._write(event, **details, **({"left_out": left_out} if left_out else {}))

    def exchanged(
        self,
        grant: str,
        provider: str,
        operation: str,
        outcome: str,
        *,
        now: Moment,
        token: AccessToken | None = None,
        because_down: bool = False,
        failing: Failing | None = None,
        **details: object,
    ) -> None:
        """An exchange ended. `token`: the new one. `because_down`: it failed as everything at the provider does now.
        `failing`: since when the grant fails, and how often it did.
        The audit log has every exchange; of failures that are alike, the log has few (core/repeated_failures.py)."""
        event = exchange_event(operation, outcome, str(details.get("state")))
        fields = {"grant": grant, "provider": provider, "operation": operation, "outcome": outcome, **details}
        self._write_exchange(event, fields, now, failing, because_down=because_down)
        if token is not None and self._audit is not None:
            details["token"] = self._audit.mark(token, token.value.reveal())
        about = {"grant": grant, "provider": provider, "operation": operation}
        entry = {"event": event, "outcome": outcome, **about, **details}
        self._note("audit", entry, acting.get(), is_unique=details.get("token") is not None)

    def joined(self, grant: str, exchange: str) -> None:
        """A request that came with an id of its own waits for the exchange with that id."""
        self._write(Event.EXCHANGE_JOINED, grant=grant, exchange=exchange)

    def _write_exchange(
        self, event: Event, fields: Mapping[str, Any], now: Moment, known: Failing | None, *, because_down: bool
    ) -> None:
        failing, series = None, (fields["grant"], fields["operation"] == "revoke", fields.get("variant"))
        if event in (Event.RENEWED, Event.REVOCATION_TOLD, Event.GRANT_NEEDS_LOGIN):
            failing = self._failures.worked(series)  # or a person must do the rest
        elif event in (Event.RENEWAL_FAILED, Event.REVOCATION_NOT_TOLD):
            if not because_down:
                reason = f"{fields['outcome']}: {fields['reason']}"
                failing = self._failures.failed(series, fields["provider"], reason, now, known)
            if failing is None:
                self._log.debug(event, **fields, **ids())
                return
            if failing.sums_up:
                about = {name: fields[name] for name in ("provider", "reason", *("grant",) * (failing.grants == 1))}
                self._write(Event.STILL_FAILING, **about, grants=failing.grants, **_failing(failing, now))
                return
        self._write(event, **fields, **({} if failing is None or failing.is_first else _failing(failing, now)))

    def provider_down(
        self, provider: str, reason: str, failing: Failing, now: Moment, remedy: str | None = None
    ) -> None:
        """An exchange failed, as everything at the provider does now."""
        found = self._outages.failed(provider, provider, reason, now, failing)
        if found is not None:
            event = Event.PROVIDER_DOWN if found.is_first else Event.PROVIDER_STILL_DOWN
            more = {"remedy": remedy} if remedy else {}
            self.say(event, provider=provider, grants=failing.grants, reason=reason, **_failing(failing, now), **more)

    def provider_up(self, provider: str, grants: int, now: Moment) -> None:
        """The provider has answered. The log says so if it said that the provider is down."""
        if (failing := self._outages.worked(provider)) is not None:
            self.say(Event.PROVIDER_UP, provider=provider, grants=grants, **_failing(failing, now))

    def say(self, event: Event, **details: object) -> None:
        self._write(event, **details)
        self._note("audit", {"event": event, **details}, acting.get())

    def say_now(self, event: Event, **details: object) -> None:
        """Like `say`, but written to the audit log now and not with the next group: no crash loses it."""
        self._write(event, **details)
        self._note("audit", {"event": event, **details}, acting.get(), at_once=True)

    def bug(self, where: str, **details: object) -> None:
        """A fault in brokerd itself, with its traceback; tracebacks show no values of variables. `where`: what it
        ended, such as a request."""
        self._write(Event.BUG, ended=where, exc_info=True, **details)
        self._note("audit", {"event": Event.BUG, "ended": where, **details}, acting.get())

    def _write(self, event: Event, **details: object) -> None:
        getattr(self._log, event.level)(event, **details, **ids())
        self.noticed(event, details)

    def _note(
        self,
        series: str,
        entry: Mapping[str, object],
        caller: Caller | None,
        *,
        at_once: bool = False,
        is_request: bool = False,
        is_unique: bool = False,
    ) -> None:
        """`is_request`: a request failed or was denied. `is_unique`: no other entry equals this one."""
        by = None if caller is None else caller.user or f"uid {caller.uid}"
        self.recent.note(time.time(), entry, by, is_request=is_request)
        if self._audit is None:
            return
        entry = {**entry, **ids()}
        if caller is None and is_unique:
            self._audit.append(series, entry)
        elif caller is None:
            self._audit.note(series, entry, at_once=at_once)
        else:
            self._audit.note(series, {**entry, "who": evidence(caller)}, caller.uid, at_once=at_once)


def _is_of(last: Fetch, token: AccessToken, caller: Caller, method: str) -> bool:
    return last[1]() is token and last[2] is caller and last[3] == method


def utc(wall: float) -> str:
    """Unix seconds, for a line of the log."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _failing(failing: Failing, now: Moment) -> dict[str, object]:
    """Since when and how often something failed, in a line of the log."""
    since = utc(wall_time(failing.since, now))
    return {"tries": failing.tries, "failing_for": in_words(-seconds_until(failing.since, now)), "since": since}


def who(caller: Caller) -> dict[str, object]:
    """A caller in a line of the log: its user and process, and its unit, container and executable where known."""
    seen = caller.evidence
    found = {"user": caller.user, "uid": caller.uid, "pid": caller.pid, "unit": seen.unit or seen.user_unit}
    found |= {"container": seen.container, "exe": seen.exe, "credential": caller.credential}
    return {name: value for name, value in found.items() if value is not None}


def evidence(caller: Any) -> dict[str, object]:
    """All that the kernel said of a caller; empty fields are left out."""
    found = {field.name: getattr(caller, field.name) for field in fields(caller)}
    found = {name: evidence(value) if is_dataclass(value) else value for name, value in found.items()}
    return {name: value for name, value in found.items() if value or type(value) is int}
