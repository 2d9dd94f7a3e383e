# A connection as methods see it, and what its caller may do by the rules. Every denial goes through here.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from brokerd.audit import Audit, Told
from brokerd.broker import Broker
from brokerd.core.admission import DENIAL, Account
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.policy import Action, Caller, Policy, learned
from brokerd.core.ports import Process
from brokerd.core.wanted import Wanted
from brokerd.metrics import Metrics

Later = Callable[[], Awaitable[object]]
Notify = Callable[[str, dict[str, object]], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class Session:
    """What is known of a connection: who calls, what he may get by which rules, what he watches and begins. `caller`
    has the evidence that `process` showed last; `needs` names what rules about a grant want to know of it."""

    process: Process
    account: Account
    notify: Notify
    caller: Caller = field(init=False)
    known: tuple[Caller | None, frozenset[str]] = (None, frozenset())  # what it showed last, and what of that was meant
    rules: Policy | None = None
    needs: dict[str | None, frozenset[str]] = field(default_factory=dict)
    may_get: dict[str, bool] = field(default_factory=dict)
    watching: dict[str, Callable[[str], None]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    told: Told = field(default_factory=dict)
    wake: trio.Event = field(default_factory=trio.Event)
    pusher: trio.CancelScope | None = None
    logins: set[str] = field(default_factory=set)
    backup: bytes = b""  # what it fetches piece by piece

    def __post_init__(self) -> None:
        self.caller = self.process.caller

    def know(self, seen: Caller, needs: frozenset[str]) -> None:
        """What the process shows now."""
        if seen is self.known[0] and needs == self.known[1]:
            return
        self.known = seen, needs
        caller = learned(self.caller, seen, needs)
        if caller != self.caller:
            self.caller = caller
            self.may_get.clear()


class Rights:
    """Who may do what. `policy` is the configuration's; a reload puts another in its place."""

    def __init__(self, broker: Broker, audit: Audit, metrics: Metrics) -> None:
        self.policy = Policy()
        self._broker = broker
        self._audit = audit
        self._metrics = metrics

    def up_to_date(self, session: Session, grants: Sequence[str | None]) -> bool:
        """Whether what the rules about these grants (None: about all) name of the caller is known as it is now;
        otherwise `look` first. Raises OSError where the caller is gone."""
        needs = self._needs(session, grants)
        if not needs:
            return True
        caller = session.process.glance(needs)
        if caller is None:
            return False
        session.know(caller, needs)
        return True

    async def look(self, session: Session, grants: Sequence[str | None]) -> None:
        """Learn of the caller what the rules about these grants name. Raises OSError where he is gone."""
        needs = self._needs(session, grants)
        session.know(await session.process.look(needs), needs)

    def refuse_the_gone(self, session: Session, method: str, grant: str) -> NoReturn:
        """The caller has ended before he could be looked at."""
        words = "the caller is gone"
        self._deny(session, method, grant, words)
        raise Failure(Code.DENIED, words)

    def _needs(self, session: Session, grants: Sequence[str | None]) -> frozenset[str]:
        if session.rules is not self.policy:
            session.rules = self.policy
            session.may_get.clear()
            session.needs.clear()
        found: frozenset[str] = frozenset()
        for grant in grants:
            needs = session.needs.get(grant)
            if needs is None:
                needs = self.policy.needs(session.caller, grant)
                if grant is None or grant in self._broker.grants:  # a made-up name is not worth remembering
                    session.needs[grant] = needs
            found |= needs
        return found

    def require(self, session: Session, action: Action, grant: str, method: str) -> None:
        """Raises Failure, which says no more than the caller may know."""
        if self.policy.allows(session.caller, action, grant):
            return
        self._refuse(session, method, grant, f"the action {action} is not allowed to you")

    def require_variant(self, session: Session, grant: str, wanted: Wanted) -> None:
        """The same, to get a variant."""
        if not self.policy.allows_variant(session.caller, grant, wanted):
            self._refuse(session, "get", grant, f"you may not get it for {wanted}")

    def require_granted(self, session: Session, grant: str, wanted: Wanted, granted: tuple[str, ...] | None) -> None:
        """The same, once the provider said which scope it granted."""
        if not self.policy.allows_variant(session.caller, grant, wanted, granted):
            more = " ".join(granted or ())
            self._refuse(session, "get", grant, f"its provider answered {wanted} with more than you may get: {more}")

    def _refuse(self, session: Session, method: str, grant: str, words: str) -> NoReturn:
        self._deny(session, method, grant, words)
        if grant in self._broker.grants and self.policy.allows(session.caller, Action.STATUS, grant):
            raise Failure(Code.DENIED, f"{grant}: {words}; see [[allow]] in the configuration", grant)
        raise unknown(grant)

    def require_administration(self, session: Session, method: str) -> None:
        if not self.policy.allows_administration(session.caller):
            self._deny(session, method, "*", "no rule allows admin")
            words = (
                f'{method} is for root, brokerd\'s user, and rules with grants = ["*"] and the action admin; try sudo'
            )
            raise Failure(Code.DENIED, words)

    def _deny(self, session: Session, method: str, grant: str, reason: str) -> None:
        self._metrics.denials.inc()
        session.account.charge(DENIAL, trio.current_time())
        self._audit.denied(method, grant[:128], session.caller, reason)

    def ground(self, caller: Caller, grant: str, wanted: Wanted | None = None) -> str:
        """By what the caller may get it, for the audit log."""
        return self.policy.ground(caller, grant, wanted)

    def may_get(self, session: Session, grant: str) -> bool:
        known = session.may_get.get(grant)
        if known is None:
            known = self.policy.allows(session.caller, Action.GET, grant)
            if grant in self._broker.grants:  # a made-up name is not worth remembering
                session.may_get[grant] = known
        return known
