# The methods of the protocol over a broker on virtual time, and callers whose evidence a test sets.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import trio

from brokerd.audit import Audit
from brokerd.core.admission import Account
from brokerd.core.failure import Failure
from brokerd.core.policy import Action, Caller, Evidence, Policy, Rule, Selector
from brokerd.methods import Methods, Session
from brokerd.metrics import Metrics
from tests.laws.world import ISSUING, World, world

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

    def __init__(self, made: World, methods: Methods) -> None:
        self.made, self.methods = made, methods
        self.provider, self.broker = made.provider, made.broker
        self.pushed: list[tuple[str, dict[str, object]]] = []

    def session(self, process: Program, account: Account | None = None) -> Session:
        return Session(cast(Any, process), account or Account(), self._notify)

    async def ask(self, session: Session, method: str, **params: object) -> Any:
        """The result, or the code of the failure."""
        try:
            answer = self.methods.answer(session, method, params)
            return await cast(Any, answer)() if callable(answer) else answer
        except Failure as failure:
            return str(failure.code)

    async def _notify(self, method: str, params: dict[str, object]) -> bool:
        self.pushed.append((method, params))
        return True


class Nothing:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@contextlib.asynccontextmanager
async def desk(folder: Path, policy: Policy, text: str = ISSUING) -> AsyncIterator[Desk]:
    """No exchange goes ahead by itself."""
    async with world(folder, text, refresher=False) as made, trio.open_nursery() as nursery:
        methods = Methods(
            made.broker, nursery, cast(Any, Nothing()), cast(Any, Nothing()), Audit(), Metrics(), Nothing()
        )
        methods.policy = policy
        cast(Any, made.store).resealing_since = None
        yield Desk(made, methods)
        nursery.cancel_scope.cancel()


def allows(*selectors: Selector, grants: tuple[str, ...] = ("app",), actions: tuple[Action, ...] = ()) -> Policy:
    return Policy((Rule(grants, selectors, frozenset(actions or {Action.GET})),), owner=990)
