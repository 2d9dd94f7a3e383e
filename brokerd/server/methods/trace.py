# trace: the steps of one renewal, pushed to the connection while they happen. Who may renew the grant may follow it; no
# step has a secret in it (telemetry/steps.py).
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import Action
from brokerd.core.errors import Code, Failure, unknown
from brokerd.core.events import Event
from brokerd.server.methods.parameters import WAIT_LONGEST
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry import steps
from brokerd.telemetry.steps import Step

MOST = 256  # steps that wait for a reader; of more, the oldest are dropped and counted


@dataclass(eq=False, slots=True)
class Trace:
    """One renewal as one connection follows it. `lost`: steps that were dropped. `is_over`: the end has come, and after
    what is in `steps` nothing follows; `failure`: how it ended."""

    grant: str
    only_waits: bool
    began: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    steps: deque[dict[str, object]] = field(default_factory=deque)
    wake: trio.Event = field(default_factory=trio.Event)
    lost: int = 0
    is_over: bool = False
    failure: Failure | None = None

    def tell(self, step: Step, at: float, request_id: str | None) -> None:
        """A step has happened. Never waits: the exchange goes on, whether somebody reads this or not."""
        if len(self.steps) >= MOST:
            self.steps.popleft()
            self.lost += 1
        about = {"grant": self.grant, "ms": round((at - self.began) * 1000, 1), "step": step.name, "words": step.words}
        self.steps.append(about | ({} if request_id is None else {"request_id": request_id}) | dict(step.facts))
        if self.only_waits and step.name == steps.ENDED:
            self.is_over = True
        self.wake.set()

    def end(self, failure: Failure | None = None) -> None:
        self.failure, self.is_over = failure, True
        self.wake.set()


class TraceMethods:
    """Traces run in `nursery`, the daemon's."""

    def __init__(self, broker: TokenBroker, rights: Rights, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._rights = rights
        self._nursery = nursery
        self._events = broker.events

    async def trace(self, session: CallerSession, params: dict[str, Any]) -> object:
        """Begin a renewal and follow it, or with `only_wait` the next one that begins by itself."""
        grant, only_waits = params["grant"], params.get("only_wait", False)
        self._broker.grant(grant)
        if session.trace is not None:
            raise Failure(Code.LIMIT, "trace: this connection follows a renewal already; open another one", grant)
        session.trace = trace = Trace(grant, only_waits, trio.current_time())
        self._events.say(Event.TRACE_BEGUN, grant=grant)
        self._events.traces.follow(grant, trace.tell)
        self._nursery.start_soon(self._run, session, trace, name=f"trace {grant}")
        return {"grant": grant}

    def end(self, session: CallerSession) -> None:
        """The connection has ended: nothing is pushed to it any more. The exchange goes on."""
        if session.trace is not None:
            session.trace.scope.cancel()

    async def _run(self, session: CallerSession, trace: Trace) -> None:
        """A fault of ours ends nothing else."""
        try:
            with trace.scope:
                async with trio.open_nursery() as nursery:
                    if not trace.only_waits:
                        nursery.start_soon(self._renew, session, trace)
                    await self._push(session, trace)
                    nursery.cancel_scope.cancel()
        except Exception:
            self._events.bug("trace")
        finally:
            self._events.traces.unfollow(trace.grant, trace.tell)
            session.trace = None

    async def _renew(self, session: CallerSession, trace: Trace) -> None:
        """The renewal, and whatever is under way when it was waited for long enough."""
        grant, failure = self._broker.grants.get(trace.grant), None
        if grant is not None and grant.running is not None:
            trace.tell(steps.joins(grant.running.trail.request_id), trio.current_time(), None)
        try:
            with self._events.failures_of("trace", trace.grant, session.caller):
                await self._broker.refresh(trace.grant, wait=WAIT_LONGEST)
        except Failure as caught:
            failure = caught
        while grant is not None and grant.running is not None:
            await grant.running.done.wait()
        trace.end(failure)

    async def _push(self, session: CallerSession, trace: Trace) -> None:
        """Until the trace is over, the client has gone, or it may not follow any more (law 9)."""
        while trace.steps or not trace.is_over:
            while trace.steps:
                if not await self._may_follow(session, trace.grant):
                    trace.end(unknown(trace.grant))
                    trace.steps.clear()
                elif not await session.notify("trace", trace.steps.popleft()):
                    return
            if not trace.is_over:
                trace.wake = trio.Event()
                await trace.wake.wait()
        error = {} if trace.failure is None else {"error": trace.failure.as_map()}
        await session.notify("trace", {"grant": trace.grant, "step": "end", "lost": trace.lost, **error})

    async def _may_follow(self, session: CallerSession, grant: str) -> bool:
        try:
            if not self._rights.up_to_date(session, [grant]):
                await self._rights.look(session, [grant])
        except OSError:
            return False  # the caller has ended
        return self._rights.allows(session, Action.REFRESH, grant)
