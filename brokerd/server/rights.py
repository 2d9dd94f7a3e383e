# What the rules allow a connection's caller. Every denial is decided, counted and logged here.
from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NoReturn

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.admission import DENIAL, HASHED, RULE
from brokerd.core.access.policy import Action, Caller, Policy, Standing
from brokerd.core.errors import Code, Failure, unknown
from brokerd.core.grant.target import Target
from brokerd.core.ports import Process
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

MOST_STANDINGS = 1_000  # callers, told apart by user and groups, whose possible rules are remembered


class Rights:
    """Who may do what. A reload replaces `policy`."""

    def __init__(self, broker: TokenBroker, events: EventLog, metrics: Metrics) -> None:
        self.policy = Policy()
        self._broker = broker
        self._events = events
        self._metrics = metrics
        self._standings: dict[Hashable, Standing] = {}  # from `_standings_of`, by what rules know without evidence
        self._standings_of = self.policy

    # -- evidence about the caller

    def up_to_date(self, session: CallerSession, grants: Sequence[str | None]) -> bool:
        """Whether the evidence that rules about these grants (None: about all) ask for could be read without waiting.
        If not, call `look` first. Raises OSError if the caller has ended."""
        needs = self.needs(session, grants)
        if not needs:
            return True
        caller = session.process.glance(needs)
        if caller is None:
            return False
        session.update(caller, needs)
        return True

    async def look(self, session: CallerSession, grants: Sequence[str | None]) -> None:
        """Read the evidence that rules about these grants ask for: the rules that are in force when this returns.
        Raises OSError if the caller has ended."""
        rules = None
        while rules is not self.policy:
            rules = self.policy
            needs = self.needs(session, grants)
            session.update(await self.examine(session, session.process, needs), needs)

    async def examine(self, session: CallerSession, process: Process, needs: frozenset[str]) -> Caller:
        """Look at any process and charge the session's user for it. Raises OSError if that process has ended."""
        found = await process.look(needs)
        session.account.charge(found.evidence.hashed / HASHED, trio.current_time())
        return found

    async def look_again(self, session: CallerSession, grants: Sequence[str | None], method: str) -> None:
        """Read the evidence again when the wait for an answer is over. After this call, nothing may be awaited before
        the rules were asked again and the answer is written (law 9). Raises Failure if the caller has ended."""
        try:
            if not self.up_to_date(session, grants):
                await self.look(session, grants)
        except OSError:
            self.deny_ended_caller(session, method, grants[0] or "*")

    async def require_again(
        self, session: CallerSession, action: Action, grant: str, method: str, target: Target | None = None
    ) -> None:
        """As `require`, with the evidence read again. For the end of a wait."""
        await self.look_again(session, [grant], method)
        self.require(session, action, grant, method, target)

    def deny_ended_caller(self, session: CallerSession, method: str, grant: str) -> NoReturn:
        """The caller ended before it could be looked at."""
        words = "the calling process has ended"
        self._deny(session, method, grant, words)
        raise Failure(Code.DENIED, words)

    def needs(self, session: CallerSession, grants: Sequence[str | None]) -> frozenset[str]:
        """The evidence that rules about these grants ask for."""
        return self._standing(session).needs(grants[0] if len(grants) == 1 else None)

    def _standing(self, session: CallerSession) -> Standing:
        if session.rules is not self.policy or session.standing is None:
            session.rules, session.standing, session.matching = self.policy, self._look_up(session), None
            session.may_get.clear()
        return session.standing

    def _look_up(self, session: CallerSession) -> Standing:
        """This goes through all rules, so it is done once for all connections of the same user and groups."""
        if self._standings_of is not self.policy or len(self._standings) >= MOST_STANDINGS:
            self._standings_of, self._standings = self.policy, {}
        who = session.process.caller
        if (found := self._standings.get(_key(who))) is None:
            session.account.charge(RULE * self.policy.size, trio.current_time())
            found = self._standings[_key(who)] = Standing(self.policy, who)
        return found

    def matching(self, session: CallerSession) -> Policy:
        """The rules that the caller matches with the evidence that it showed last."""
        standing = self._standing(session)
        if session.matching is None:
            session.account.charge(RULE * standing.size, trio.current_time())
            session.matching = standing.policy(session.caller)
        return session.matching

    def matching_as(self, session: CallerSession, caller: Caller) -> Policy:
        """The rules that the session's caller would match with other evidence."""
        standing = self._standing(session)
        session.account.charge(RULE * standing.size, trio.current_time())
        return standing.policy(caller)

    # -- what the caller may do

    def allows(self, session: CallerSession, action: Action, grant: str) -> bool:
        return self.matching(session).allows(session.caller, action, grant)

    def may_get(self, session: CallerSession, grant: str) -> bool:
        """Whether the caller may get the grant's own token. Only a yes is remembered: each no, about a grant and about
        a name that does not exist, takes the same work (law 9)."""
        if grant in session.may_get:
            return True
        found = self.allows(session, Action.GET, grant)
        if found and grant in self._broker.grants:
            session.may_get.add(grant)
        return found

    def require(
        self, session: CallerSession, action: Action, grant: str, method: str, target: Target | None = None
    ) -> None:
        """Raises Failure, which says no more than the caller may know. With `target`: the right to get that downscoped
        token."""
        if target is not None:
            if not self.matching(session).allows_downscoped(session.caller, grant, target):
                self._refuse(session, method, grant, f"no rule allows this caller a token for {target}")
        elif not self.allows(session, action, grant):
            self._refuse(session, method, grant, f"no rule allows this caller the action {action}")

    def require_granted(
        self, session: CallerSession, grant: str, target: Target, granted: tuple[str, ...] | None
    ) -> None:
        """As `require` for a downscoped token, once the provider has said which scope it granted."""
        if not self.matching(session).allows_downscoped(session.caller, grant, target, granted):
            more = " ".join(granted or ())
            words = f"it was asked for {target}, and the provider granted more than the rules allow this caller: {more}"
            self._refuse(session, "get", grant, words)

    def require_administration(self, session: CallerSession, method: str) -> None:
        """Raises Failure."""
        if not self.matching(session).allows_administration(session.caller):
            self._deny(session, method, "*", "no rule allows admin")
            words = (
                f"{method} is for root, for the user that brokerd runs as, and for callers that a rule with "
                'grants = ["*"] allows the action admin; try sudo'
            )
            raise Failure(Code.DENIED, words)

    def require_status_of_all(self, session: CallerSession, method: str) -> None:
        """Raises Failure unless the caller may see every grant, also those of other hosts."""
        if self.matching(session).allows_status_of_all(session.caller):
            return
        self._deny(session, method, "*", "no rule allows this caller the status of every grant")
        words = (
            f"{method} is for root, for the user that brokerd runs as, and for callers that a rule with "
            'grants = ["*"] allows the action status or admin; try sudo'
        )
        raise Failure(Code.DENIED, words)

    def rule_for(self, caller: Caller, grant: str, target: Target | None = None) -> str:
        """Which rule lets the caller get the token. For the audit log."""
        standing = self._standings.get(_key(caller)) if self._standings_of is self.policy else None
        return (self.policy if standing is None else standing.policy(caller)).ground(caller, grant, target)

    def _refuse(self, session: CallerSession, method: str, grant: str, words: str) -> NoReturn:
        """Do the same work for a grant that is denied and for one that does not exist: the time that the answer takes
        must not tell them apart (law 9)."""
        self._deny(session, method, grant, words)
        if self.allows(session, Action.STATUS, grant) and grant in self._broker.grants:
            raise Failure(Code.DENIED, f"{grant}: {words}; see [[allow]] in the configuration", grant)
        raise unknown(grant)

    def _deny(self, session: CallerSession, method: str, grant: str, reason: str) -> None:
        self._metrics.denials.inc()
        session.account.charge(DENIAL, trio.current_time())
        self._events.denied(method, grant[:128], session.caller, reason)


def _key(caller: Caller) -> Hashable:
    """All that rules can know of a caller without looking at its process."""
    return caller.uid, caller.user, caller.gids, caller.groups, caller.foreign, caller.is_systemd
