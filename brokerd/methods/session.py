# A connection as methods see it, and what its caller may do by the rules. Every denial goes through here.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from brokerd.audit import Audit, Told
from brokerd.broker import Broker
from brokerd.core.admission import DENIAL, HASHED, RULE, Account
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.policy import Action, Caller, Policy, Standing, learned
from brokerd.core.ports import Process
from brokerd.core.wanted import Wanted
from brokerd.metrics import Metrics

Later = Callable[[], Awaitable[object]]
Notify = Callable[[str, dict[str, object]], Awaitable[bool]]
MOST_STANDINGS = 1_000  # callers, told apart by user and groups, for whom the rules are sorted out


@dataclass(eq=False, slots=True)
class Session:
    """What is known of a connection: who calls, what it may get by which rules, what it watches and begins. `caller`
    has the evidence that `process` showed last. `standing` is what `rules` can say to it, and `own` those of them that
    it matches by that evidence; None: to be looked up."""

    process: Process
    account: Account
    notify: Notify
    caller: Caller = field(init=False)
    known: tuple[Caller | None, frozenset[str]] = (None, frozenset())  # what it showed last, and what of that was meant
    rules: Policy | None = None
    standing: Standing | None = None
    own: Policy | None = None
    may_get: set[str] = field(default_factory=set)
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
            self.own = None
            self.may_get.clear()


class Rights:
    """Who may do what. `policy` is the configuration's; a reload puts another in its place."""

    def __init__(self, broker: Broker, audit: Audit, metrics: Metrics) -> None:
        self.policy = Policy()
        self._broker = broker
        self._audit = audit
        self._metrics = metrics
        self._standings: dict[Hashable, Standing] = {}  # of `_standings_of`, by what rules know of a caller at once
        self._standings_of = self.policy

    # -- what is known of the caller

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
        """Learn of the caller what the rules about these grants name: the rules that count when this returns. Raises
        OSError where the caller is gone."""
        rules = None
        while rules is not self.policy:
            rules = self.policy
            needs = self._needs(session, grants)
            session.know(await self.seen(session, session.process, needs), needs)

    async def seen(self, session: Session, process: Process, needs: frozenset[str]) -> Caller:
        """A look at a process, for which the session's user is charged. Raises OSError where that is gone."""
        found = await process.look(needs)
        session.account.charge(found.evidence.hashed / HASHED, trio.current_time())
        return found

    async def see_again(self, session: Session, grants: Sequence[str | None], method: str) -> None:
        """When the wait for an answer is over: learn what counts now. From here on nothing may be waited for until the
        rules were asked again and the answer is written (law 9). Raises Failure where the caller is gone."""
        try:
            if not self.up_to_date(session, grants):
                await self.look(session, grants)
        except OSError:
            self.refuse_the_gone(session, method, grants[0] or "*")

    async def require_again(
        self, session: Session, action: Action, grant: str, method: str, wanted: Wanted | None = None
    ) -> None:
        """As `require`, when the wait for an answer is over."""
        await self.see_again(session, [grant], method)
        self.require(session, action, grant, method, wanted)

    def refuse_the_gone(self, session: Session, method: str, grant: str) -> NoReturn:
        """The caller has ended before it could be looked at."""
        words = "the caller is gone"
        self._deny(session, method, grant, words)
        raise Failure(Code.DENIED, words)

    def _needs(self, session: Session, grants: Sequence[str | None]) -> frozenset[str]:
        return self._standing(session).needs(grants[0] if len(grants) == 1 else None)

    def _standing(self, session: Session) -> Standing:
        if session.rules is not self.policy or session.standing is None:
            session.rules, session.standing, session.own = self.policy, self._look_up(session), None
            session.may_get.clear()
        return session.standing

    def _look_up(self, session: Session) -> Standing:
        """It goes through all rules: once for all connections of the same user and groups."""
        if self._standings_of is not self.policy or len(self._standings) >= MOST_STANDINGS:
            self._standings_of, self._standings = self.policy, {}
        who = session.process.caller
        if (found := self._standings.get(_key(who))) is None:
            session.account.charge(RULE * self.policy.size, trio.current_time())
            found = self._standings[_key(who)] = Standing(self.policy, who)
        return found

    def own(self, session: Session) -> Policy:
        """The rules that the caller matches, as it is known."""
        standing = self._standing(session)
        if session.own is None:
            session.account.charge(RULE * standing.size, trio.current_time())
            session.own = standing.policy(session.caller)
        return session.own

    def own_of(self, session: Session, caller: Caller) -> Policy:
        """The rules that the session's caller matches with other evidence."""
        standing = self._standing(session)
        session.account.charge(RULE * standing.size, trio.current_time())
        return standing.policy(caller)

    # -- what it may do

    def allows(self, session: Session, action: Action, grant: str) -> bool:
        return self.own(session).allows(session.caller, action, grant)

    def require(self, session: Session, action: Action, grant: str, method: str, wanted: Wanted | None = None) -> None:
        """Raises Failure, which says no more than the caller may know. `wanted`: to get that variant."""
        if wanted is not None:
            if not self.own(session).allows_variant(session.caller, grant, wanted):
                self._refuse(session, method, grant, f"you may not get it for {wanted}")
        elif not self.allows(session, action, grant):
            self._refuse(session, method, grant, f"the action {action} is not allowed to you")

    def require_granted(self, session: Session, grant: str, wanted: Wanted, granted: tuple[str, ...] | None) -> None:
        """The same, once the provider said which scope it granted."""
        if not self.own(session).allows_variant(session.caller, grant, wanted, granted):
            more = " ".join(granted or ())
            self._refuse(session, "get", grant, f"its provider answered {wanted} with more than you may get: {more}")

    def _refuse(self, session: Session, method: str, grant: str, words: str) -> NoReturn:
        """The same work for what is denied and for what is not there: they shall not differ in time either."""
        self._deny(session, method, grant, words)
        if self.allows(session, Action.STATUS, grant) and grant in self._broker.grants:
            raise Failure(Code.DENIED, f"{grant}: {words}; see [[allow]] in the configuration", grant)
        raise unknown(grant)

    def require_administration(self, session: Session, method: str) -> None:
        if not self.own(session).allows_administration(session.caller):
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
        standing = self._standings.get(_key(caller)) if self._standings_of is self.policy else None
        return (self.policy if standing is None else standing.policy(caller)).ground(caller, grant, wanted)

    def may_get(self, session: Session, grant: str) -> bool:
        """Whether it may get the grant's own token. Only a yes is remembered: the first no and a later one, about a
        grant and about a made-up name, are the same work."""
        if grant in session.may_get:
            return True
        found = self.allows(session, Action.GET, grant)
        if found and grant in self._broker.grants:
            session.may_get.add(grant)
        return found


def _key(caller: Caller) -> Hashable:
    """All that rules can know of a caller without a look at its process."""
    return caller.uid, caller.user, caller.gids, caller.groups, caller.foreign
