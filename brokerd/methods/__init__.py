# The methods of docs/protocol.md: their parameters checked, the rules asked, the broker told. It sees no bytes.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from brokerd.audit import Audit, acting
from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Policy
from brokerd.core.ports import Processes
from brokerd.custody import Custody
from brokerd.methods.changing import Changing
from brokerd.methods.explaining import SAID, Explaining
from brokerd.methods.fetching import Fetching
from brokerd.methods.keeping import Keeping
from brokerd.methods.logging_in import LoggingIn
from brokerd.methods.looking import MAX_IN_FLIGHT, MAX_MESSAGE, NOT_ADOPTED, Looking
from brokerd.methods.parameters import (
    MANY,
    VARIANT,
    WAIT,
    WAIT_LONGEST,
    Check,
    boolean,
    count,
    names,
    names_of_any_number,
    pid,
    seconds,
    text,
    texts,
    wait,
)
from brokerd.methods.session import Later, Rights, Session
from brokerd.methods.watching import Watching
from brokerd.metrics import Metrics
from brokerd.reload import Changes

LARGE = frozenset({"status", "backup"})  # methods whose answers may have megabytes
WHILE_LOCKED = frozenset({"hello", "status", "lock", "unlock", "backup", "seal_audit"})
CHANGING = frozenset({
    "refresh", "revoke", "import", "forget", "adopt", "trust", "reload", "login", "unlock", "rotate_key", "backup",
})  # fmt: skip
SETTLED = CHANGING - {"refresh", "login"} | {"lock"}  # answered only when what the audit log has of it is durable
Handler = Callable[[Session, dict[str, Any]], object]
__all__ = [
    "LARGE",
    "MANY",
    "MAX_IN_FLIGHT",
    "MAX_MESSAGE",
    "NOT_ADOPTED",
    "WAIT",
    "WAIT_LONGEST",
    "Later",
    "Methods",
    "Session",
    "waits",
]


class Methods:
    """Answers requests. `reload` reads the configuration again; it raises Failure."""

    def __init__(
        self,
        broker: Broker,
        nursery: trio.Nursery,
        reload: Callable[[], Awaitable[Changes]],
        custody: Custody,
        audit: Audit,
        metrics: Metrics,
        processes: Processes,
    ) -> None:
        self.audit = audit
        self._broker = broker
        self._rights = rights = Rights(broker, audit, metrics)
        fetching = Fetching(broker, rights, audit, metrics)
        self._watching = watching = Watching(broker, rights, fetching, nursery)
        keeping = Keeping(rights, custody, audit)
        looking, changing = Looking(broker, rights, audit), Changing(broker, rights, reload)
        self._logging_in = logging_in = LoggingIn(broker, rights)
        step = {"login": text, "step": count, "wait": wait}
        explaining = Explaining(broker, rights, processes)
        explain = {"grant": text, "pid": pid, **dict.fromkeys(SAID, text)}
        get = {"grant": text, "min_ttl": seconds, "wait": wait, "refused": text, **VARIANT}
        proof = {"grant": text, "http_method": text, "url": text, "nonce": text, "wait": wait}
        self._handlers: dict[str, tuple[Handler, Mapping[str, Check], tuple[str, ...]]] = {
            "hello": (looking.hello, {}, ()),
            "get": (fetching.get, get, ("grant",)),
            "get_many": (fetching.get_many, {"grants": names, "min_ttl": seconds, "wait": wait}, ("grants",)),
            "proof": (fetching.proof, proof, ("grant", "http_method", "url")),
            "watch": (watching.watch, {"grants": names}, ("grants",)),
            "unwatch": (watching.unwatch, {"grants": names}, ("grants",)),
            "status": (looking.status, {"grants": names_of_any_number}, ()),
            "verify": (looking.verify, {"grant": text, "wait": wait}, ("grant",)),
            "explain": (explaining.explain, explain, ("grant",)),
            "refresh": (changing.refresh, {"grant": text, "wait": wait}, ("grant",)),
            "revoke": (changing.revoke, {"grant": text, "local": boolean, "wait": wait}, ("grant",)),
            "forget": (changing.forget, {"grant": text}, ("grant",)),
            "adopt": (changing.adopt, {}, ()),
            "trust": (changing.trust, {"provider": text}, ("provider",)),
            "import": (changing.import_token, {"grant": text, "refresh_token": text}, ("grant", "refresh_token")),
            "login": (logging_in.login, {"grant": text, "account": boolean, "wait": wait}, ("grant",)),
            "login_answer": (logging_in.answer, {**step, "answer": texts}, ("login", "step", "answer")),
            "login_wait": (logging_in.wait, step, ("login", "step")),
            "reload": (changing.read_again, {}, ()),
            "lock": (keeping.lock, {}, ()),
            "unlock": (keeping.unlock, {"passphrase": text, "new": boolean}, ()),
            "rotate_key": (keeping.rotate_key, {"passphrase": text, "full": boolean}, ()),
            "seal_audit": (keeping.seal, {}, ()),
            "backup": (keeping.backup, {"offset": count}, ()),
        }

    @property
    def policy(self) -> Policy:
        return self._rights.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._rights.policy = policy

    def answer(self, session: Session, method: str, params: dict[str, Any]) -> object:
        """The result, or a function that brings it later. Raises Failure."""
        if method not in SETTLED:
            return self._answer(session, method, params)

        async def settled() -> object:
            try:
                answer = self._answer(session, method, params)
                return await answer() if callable(answer) else answer
            finally:
                await self.audit.settled()

        return settled

    def _answer(self, session: Session, method: str, params: dict[str, Any]) -> object:
        try:
            handler, checks, required = self._handlers[method]
        except KeyError:
            known = ", ".join(self._handlers)
            raise Failure(Code.BAD_REQUEST, f"unknown method {method[:40]!r}; known: {known}") from None
        for name, value in params.items():
            if name not in checks:
                known = ", ".join(checks) or "none"
                raise Failure(Code.BAD_REQUEST, f"{method}: unknown parameter {name[:40]!r}; known: {known}")
            checks[name](f"{method}: {name}", value)
        for name in required:
            if name not in params:
                raise Failure(Code.BAD_REQUEST, f"{method}: the parameter {name} is required and missing")
        if self._broker.locked and method not in WHILE_LOCKED:
            with self.audit.asked(method, params.get("grant"), session.caller):
                raise self._broker.locked_failure()
        grants = _grants(params)
        if self._rights.up_to_date(session, grants):
            return self._told(session, method, params, handler(session, params))

        async def later() -> object:
            try:
                await self._rights.look(session, grants)
            except OSError:
                self._rights.refuse_the_gone(session, method, grants[0] or "*")
            answer = self._told(session, method, params, handler(session, params))
            return await answer() if callable(answer) else answer

        return later

    def _told(self, session: Session, method: str, params: dict[str, Any], answer: object) -> object:
        """The audit log learns on whose word something is done later, and of what was asked for in vain."""
        if not callable(answer):
            return answer

        async def later() -> object:
            acting.set(session.caller)
            if method not in CHANGING:
                return await answer()
            with self.audit.asked(method, params.get("grant"), session.caller):
                return await answer()

        return later

    def end(self, session: Session) -> None:
        """The connection is gone: nothing is pushed to it any more, and nobody logs in."""
        self._watching.end(session)
        self._logging_in.end(session)


def _grants(params: dict[str, Any]) -> list[str | None]:
    """The grants that a request is about; None stands for all."""
    if "grant" in params:
        return [params["grant"]]
    found: list[str | None] = params.get("grants", [None])
    return found


def waits(method: str, params: dict[str, Any]) -> int:
    """As how many waiting requests one counts that was found to be right."""
    return max(1, len(params["grants"])) if method == "get_many" else 1
