# The methods of docs/protocol.md: their parameters checked, the rules asked, the broker told. It sees no bytes.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import trio

from brokerd.audit import Audit, acting
from brokerd.broker import Broker
from brokerd.core.admission import LOOK
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Action, Policy
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
    sha256,
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
SIGNING = 5.0  # requests as which a proof counts,
EXPLAINING = 10.0  # an explanation, for which a process is looked at,
CHANGE = 20.0  # and what the store or a provider has to do with
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


class Method(NamedTuple):
    """A method: who answers it, which parameters it takes and must have; as how many requests it counts beyond one, by
    its parameters where these decide; what must still be allowed of its grant when an answer that took time is
    written, where the handler does not ask that itself; and whether rules are asked at all."""

    handler: Handler
    checks: Mapping[str, Check]
    required: tuple[str, ...] = ()
    cost: float | Callable[[dict[str, Any]], float] = 0.0
    again: Action | None = None
    asks_rules: bool = True


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
        get = {"grant": text, "min_ttl": seconds, "wait": wait, "refused": text, "refused_sha256": sha256, **VARIANT}
        proof = {"grant": text, "http_method": text, "url": text, "nonce": text, "wait": wait}
        self._methods = {
            "hello": Method(looking.hello, {}, asks_rules=False),
            "get": Method(fetching.get, get, ("grant",)),
            "get_many": Method(
                fetching.get_many,
                {"grants": names, "min_ttl": seconds, "wait": wait},
                ("grants",),
                lambda params: len(params["grants"]),
            ),
            "proof": Method(fetching.proof, proof, ("grant", "http_method", "url"), SIGNING),
            "watch": Method(watching.watch, {"grants": names}, ("grants",), lambda params: len(params["grants"])),
            "unwatch": Method(
                watching.unwatch,
                {"grants": names},
                ("grants",),
                lambda params: LOOK * len(params["grants"]),
                asks_rules=False,
            ),
            "status": Method(
                looking.status, {"grants": names_of_any_number}, (), lambda params: LOOK * looking.number(params)
            ),
            "verify": Method(looking.verify, {"grant": text, "wait": wait}, ("grant",), CHANGE, Action.REFRESH),
            "explain": Method(explaining.explain, explain, ("grant",), EXPLAINING),
            "refresh": Method(changing.refresh, {"grant": text, "wait": wait}, ("grant",), CHANGE, Action.REFRESH),
            "revoke": Method(
                changing.revoke, {"grant": text, "local": boolean, "wait": wait}, ("grant",), CHANGE, Action.REVOKE
            ),
            "forget": Method(changing.forget, {"grant": text}, ("grant",), CHANGE),
            "adopt": Method(changing.adopt, {}, (), CHANGE),
            "trust": Method(changing.trust, {"provider": text}, ("provider",), CHANGE),
            "import": Method(
                changing.import_token,
                {"grant": text, "refresh_token": text},
                ("grant", "refresh_token"),
                CHANGE,
                Action.LOGIN,
            ),
            "login": Method(logging_in.login, {"grant": text, "account": boolean, "wait": wait}, ("grant",), CHANGE),
            "login_answer": Method(logging_in.answer, {**step, "answer": texts}, ("login", "step", "answer"), CHANGE),
            "login_wait": Method(logging_in.wait, step, ("login", "step")),
            "reload": Method(changing.read_again, {}, (), CHANGE),
            "lock": Method(keeping.lock, {}, (), CHANGE),
            "unlock": Method(keeping.unlock, {"passphrase": text, "new": boolean}, (), CHANGE),
            "rotate_key": Method(keeping.rotate_key, {"passphrase": text, "full": boolean}, (), CHANGE),
            "seal_audit": Method(keeping.seal, {}, (), CHANGE),
            "backup": Method(keeping.backup, {"offset": count}, (), CHANGE),
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
            row = self._methods[method]
        except KeyError:
            known = ", ".join(self._methods)
            raise Failure(Code.BAD_REQUEST, f"unknown method {method[:40]!r}; known: {known}") from None
        for name, value in params.items():
            if name not in row.checks:
                known = ", ".join(row.checks) or "none"
                raise Failure(Code.BAD_REQUEST, f"{method}: unknown parameter {name[:40]!r}; known: {known}")
            row.checks[name](f"{method}: {name}", value)
        for name in row.required:
            if name not in params:
                raise Failure(Code.BAD_REQUEST, f"{method}: the parameter {name} is required and missing")
        if row.cost:
            cost = row.cost if isinstance(row.cost, float) else row.cost(params)
            session.account.charge(cost, trio.current_time())
        if self._broker.locked and method not in WHILE_LOCKED:
            with self.audit.asked(method, params.get("grant"), session.caller):
                raise self._broker.locked_failure()
        grants = _grants(params)
        if not row.asks_rules or self._rights.up_to_date(session, grants):
            return self._told(session, method, params, row.handler(session, params))

        async def later() -> object:
            try:
                await self._rights.look(session, grants)
            except OSError:
                self._rights.refuse_the_gone(session, method, grants[0] or "*")
            answer = self._told(session, method, params, row.handler(session, params))
            return await answer() if callable(answer) else answer

        return later

    def _told(self, session: Session, method: str, params: dict[str, Any], answer: object) -> object:
        """The audit log learns on whose word something is done later, and of what was asked for in vain. A caller that
        may not do it any more when it is done is not told how it went."""
        if not callable(answer):
            return answer
        again = self._methods[method].again

        async def later() -> object:
            acting.set(session.caller)
            failure = found = None
            try:
                if method not in CHANGING:
                    found = await answer()
                else:
                    with self.audit.asked(method, params.get("grant"), session.caller):
                        found = await answer()
            except Failure as caught:
                if again is None:
                    raise
                failure = caught
            if again is not None:
                await self._rights.require_again(session, again, params["grant"], method)
            if failure is not None:
                raise failure
            return found

        return later

    def known(self, session: Session) -> object:
        """What decides what the connection's caller may have: the rules, and the evidence that it has shown."""
        return self._rights.policy, session.caller

    async def learn(self, session: Session) -> bool:
        """Have it show its evidence again; False: it is gone."""
        try:
            await self._rights.see_again(session, [None], "*")
        except Failure:
            return False
        return True

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
