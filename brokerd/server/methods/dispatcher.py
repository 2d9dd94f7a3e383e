# Answers a request by the table of methods: checks its parameters, charges its user, asks the rules, calls the handler.
# It sees no bytes.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import Action
from brokerd.core.errors import Code, Failure
from brokerd.server.methods.login import LoginMethods
from brokerd.server.methods.method import ADMINISTRATION, NOBODY_ASKS, AnswerLater, Method
from brokerd.server.methods.status_watch import StatusWatchMethod
from brokerd.server.methods.trace import TraceMethods
from brokerd.server.methods.watch import WatchMethods
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.server.shared_tokens import SharedTokens
from brokerd.telemetry import tracing
from brokerd.telemetry.event_log import EventLog, acting


@dataclass(eq=False, repr=False)
class Dispatcher:
    """`watches`, `status_watch`, `logins`, `traces` and `shared` must know when a connection ends."""

    methods: Mapping[str, Method]
    _broker: TokenBroker
    rights: Rights
    events: EventLog
    _watches: WatchMethods
    _status_watch: StatusWatchMethod
    _logins: LoginMethods
    _traces: TraceMethods
    _shared: SharedTokens

    def answer(self, session: CallerSession, method: str, params: dict[str, Any]) -> object:
        """The result, or AnswerLater. Raises Failure."""
        row = self.methods.get(method)
        if row is None:
            known = ", ".join(self.methods)
            raise Failure(Code.BAD_REQUEST, f"unknown method {method[:40]!r}; known: {known}")
        if not row.durable:
            return self._answer(session, method, row, params)

        async def answer_when_durable() -> object:
            try:
                answer = self._answer(session, method, row, params)
                return await answer.bring() if isinstance(answer, AnswerLater) else answer
            finally:
                await self.events.settled()

        return AnswerLater(answer_when_durable, is_large=row.is_large)

    def _answer(self, session: CallerSession, method: str, row: Method, params: dict[str, Any]) -> object:
        for name, value in params.items():
            if name not in row.parameters:
                known = ", ".join(row.parameters) or "none"
                raise Failure(Code.BAD_REQUEST, f"{method}: unknown parameter {name[:40]!r}; known: {known}")
            row.parameters[name](f"{method}: {name}", value)
        for name in row.required:
            if name not in params:
                raise Failure(Code.BAD_REQUEST, f"{method}: the parameter {name} is required and missing")
        if row.cost:
            cost = row.cost if isinstance(row.cost, float) else row.cost(params)
            session.account.charge(cost, trio.current_time())
        if self._broker.locked and not row.while_locked:
            with self.events.failures_of(method, params.get("grant"), session.caller):
                raise self._broker.locked_failure()
        grants = _grants(params)
        if row.right is NOBODY_ASKS or self.rights.up_to_date(session, grants):
            return self._handle(session, method, row, params)

        async def look_first() -> object:
            try:
                await self.rights.look(session, grants)
            except OSError:
                self.rights.deny_ended_caller(session, method, grants[0] or "*")
            answer = self._handle(session, method, row, params)
            return await answer.bring() if isinstance(answer, AnswerLater) else answer

        return _later(look_first, row, params)

    def _handle(self, session: CallerSession, method: str, row: Method, params: dict[str, Any]) -> object:
        """The evidence about the caller is up to date."""
        if isinstance(row.right, Action):
            self.rights.require(session, row.right, params["grant"], method)
        elif row.right is ADMINISTRATION:
            self.rights.require_administration(session, method)
        answer = row.handler(session, params)
        if not isinstance(answer, AnswerLater):
            return answer

        async def answer_later() -> object:
            return await self._bring(session, method, row, params, answer)

        return _later(answer_later, row, params)

    async def _bring(
        self, session: CallerSession, method: str, row: Method, params: dict[str, Any], answer: AnswerLater
    ) -> object:
        """The audit log learns who asked for what is done now, and what failed. A caller that has lost the right
        meanwhile is not told how it ended (law 9)."""
        acting.set(session.caller)
        tracing.given.set(params.get("request_id"))
        failure = found = None
        try:
            if not row.audited:
                found = await answer.bring()
            else:
                with self.events.failures_of(method, params.get("grant"), session.caller):
                    found = await answer.bring()
        except Failure as caught:
            if not row.again:
                raise
            failure = caught
        if row.again and isinstance(row.right, Action):
            await self.rights.require_again(session, row.right, params["grant"], method)
        if failure is not None:
            raise failure
        return found

    def rights_of(self, session: CallerSession) -> object:
        """What decides about the rights of the connection's caller: the rules, and the evidence that it showed last."""
        return self.rights.policy, session.caller

    async def look_again(self, session: CallerSession) -> bool:
        """Read the evidence about the caller again. False: the caller has ended."""
        try:
            await self.rights.look_again(session, [None], "*")
        except Failure:
            return False
        return True

    def end(self, session: CallerSession) -> None:
        """The connection has ended: nothing is pushed to it any more, and the logins that it began end."""
        self._watches.end(session)
        self._status_watch.end(session)
        self._logins.end(session)
        self._traces.end(session)
        self._shared.end(session)


def _later(bring: Callable[[], Awaitable[object]], row: Method, params: dict[str, Any]) -> AnswerLater:
    weight = 1 if row.weight is None else max(1, row.weight(params))
    return AnswerLater(bring, weight=weight, is_large=row.is_large)


def _grants(params: dict[str, Any]) -> list[str | None]:
    """The grants that a request is about; None stands for all."""
    if "grant" in params:
        return [params["grant"]]
    found: list[str | None] = params.get("grants", [None])
    return found
