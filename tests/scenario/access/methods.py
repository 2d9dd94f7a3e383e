# The methods of the protocol over a broker on virtual time, and callers whose evidence a test sets.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.admission import Account
from brokerd.core.access.policy import Action, Caller, Evidence, Policy, Rule, Selector
from brokerd.core.errors import Failure
from brokerd.edge.system.shared_memory import SharedMemory
from brokerd.server.methods.changes import ChangeMethods
from brokerd.server.methods.dispatcher import Dispatcher
from brokerd.server.methods.explain import ExplainMethod
from brokerd.server.methods.fleet import FleetMethod
from brokerd.server.methods.health import HealthMethods
from brokerd.server.methods.keys import KeyMethods
from brokerd.server.methods.log_level import LogLevelMethod
from brokerd.server.methods.login import LoginMethods
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.overview import OverviewMethod
from brokerd.server.methods.proxied import ProxiedMethod
from brokerd.server.methods.share import ShareMethod
from brokerd.server.methods.status import StatusMethods
from brokerd.server.methods.status_watch import StatusWatchMethod
from brokerd.server.methods.table import methods
from brokerd.server.methods.tokens import TokenMethods
from brokerd.server.methods.trace import TraceMethods
from brokerd.server.methods.try_event import EventTestMethod
from brokerd.server.methods.watch import WatchMethods
from brokerd.server.rights import Rights
from brokerd.server.scrape import Scrape
from brokerd.server.session import CallerSession
from brokerd.server.shared_tokens import SharedTokens
from brokerd.server.token_memories import TokenMemories
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics
from tests.scenario.laws.world import ISSUING, World, world

PORTAL = 1_000  # uid
EVIL = Evidence(exe="/opt/evil")
RIGHT = Evidence(exe="/opt/portal")


class Program:
    """A process as the rules see it. `steps`: each look at it that was taken, and whether it had to be waited for."""

    def __init__(self, uid: int = PORTAL, evidence: Evidence = RIGHT, *, at_once: bool = True) -> None:
        self.caller = Caller(7, uid, frozenset({uid}))
        self.evidence, self.at_once = evidence, at_once
        self.ended = False
        self.steps: list[tuple[str, frozenset[str]]] = []
        self.while_looking = lambda: None  # what happens while a look is waited for

    def glance(self, needs: frozenset[str]) -> Caller | None:
        self.steps.append(("glance", needs))
        return self._seen() if self.at_once else None

    def lives(self) -> bool:
        return not self.ended

    async def until_ended(self) -> None:
        await trio.sleep_forever()

    async def look(self, needs: frozenset[str]) -> Caller:
        self.steps.append(("look", needs))
        await trio.sleep(0.01)
        self.while_looking()
        return self._seen()

    def _seen(self) -> Caller:
        if self.ended:
            raise ProcessLookupError
        return replace(self.caller, evidence=self.evidence)


class Desk:
    """Where callers ask."""

    def __init__(self, made: World, dispatcher: Dispatcher) -> None:
        self.made, self.dispatcher = made, dispatcher
        self.provider, self.broker = made.provider, made.broker
        self.pushed: list[tuple[str, dict[str, object]]] = []

    def session(self, process: Program, account: Account | None = None) -> CallerSession:
        return CallerSession(cast(Any, process), account or Account(), self._notify)

    async def ask(self, session: CallerSession, method: str, **params: object) -> Any:
        """The result, or the code of the failure."""
        try:
            answer = self.dispatcher.answer(session, method, params)
            return await answer.bring() if isinstance(answer, AnswerLater) else answer
        except Failure as failure:
            return str(failure.code)

    async def _notify(self, method: str, params: dict[str, object]) -> bool:
        self.pushed.append((method, params))
        return True


class Nothing:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def dispatcher_of(broker: TokenBroker, nursery: trio.Nursery, log: EventLog | None = None) -> Dispatcher:
    """All methods; those that reload, change keys or look at other processes fail when they are used."""
    nothing, events, metrics = cast(Any, Nothing()), log or EventLog(), Metrics()
    rights = Rights(broker, events, metrics)
    tokens = TokenMethods(broker, rights, events, metrics)
    watches, logins = WatchMethods(broker, rights, tokens, nursery, events), LoginMethods(broker, rights)
    shared = SharedTokens(broker, rights, nursery, events, metrics, TokenMemories(SharedMemory, 1_024))
    table = methods(
        tokens,
        watches,
        status := StatusMethods(broker, rights, events, shared),
        HealthMethods(broker, rights, events, Scrape(broker, events, metrics)),
        OverviewMethod(broker, rights, status, events),
        status_watch := StatusWatchMethod(broker, rights, nursery, events),
        ExplainMethod(broker, rights, nothing),
        ChangeMethods(broker, nothing),
        logins,
        KeyMethods(nothing, events),
        traces := TraceMethods(broker, rights, nursery),
        LogLevelMethod(events, nursery),
        EventTestMethod(nothing),
        ProxiedMethod(broker, rights, events, metrics),
        ShareMethod(shared),
        FleetMethod(broker, rights),
    )
    return Dispatcher(table, broker, rights, events, watches, status_watch, logins, traces, shared)


@contextlib.asynccontextmanager
async def desk(folder: Path, policy: Policy, text: str = ISSUING, log: EventLog | None = None) -> AsyncIterator[Desk]:
    """No exchange goes ahead by itself."""
    async with world(folder, text, refresher=False) as made, trio.open_nursery() as nursery:
        dispatcher = dispatcher_of(made.broker, nursery, log)
        dispatcher.rights.policy = policy
        cast(Any, made.store).resealing_since = None
        yield Desk(made, dispatcher)
        nursery.cancel_scope.cancel()


def allows(*selectors: Selector, grants: tuple[str, ...] = ("app",), actions: tuple[Action, ...] = ()) -> Policy:
    return Policy((Rule(grants, selectors, frozenset(actions or {Action.GET})),), owner=990)
