# explain: what a caller may do with a grant, by which rule, and if it may not, why. Only administrators see rules: to
# anybody else, a grant that they may not have looks like one that does not exist (law 9).
from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import EVIDENCE, Action, Caller, Evidence, Policy
from brokerd.core.errors import Code, Failure, unknown
from brokerd.core.ports import Processes
from brokerd.server.methods.method import AnswerLater
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession

DESCRIPTION = ("user", *sorted(EVIDENCE))  # parameters that describe a caller that need not exist
CREDENTIAL = "credential"  # likewise: it is systemd, which fetches this credential for a unit


class ExplainMethod:
    def __init__(self, broker: TokenBroker, rights: Rights, processes: Processes) -> None:
        self._broker = broker
        self._rights = rights
        self._processes = processes

    def explain(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        grant, described = (
            params["grant"],
            {name: params[name] for name in (*DESCRIPTION, CREDENTIAL) if name in params},
        )
        if described or "pid" in params:
            self._rights.require_administration(session, "explain")
        if described and "pid" in params:
            words = "explain: expected a pid or a description of a caller, found both; leave one out"
            raise Failure(Code.BAD_REQUEST, words)
        administrator = self._rights.matching(session).allows_administration(session.caller)
        if administrator and grant not in self._broker.grants:
            raise unknown(grant)

        @AnswerLater
        async def answer() -> object:
            try:
                if "pid" in params:
                    with closing(await self._processes.of_pid(params["pid"])) as process:
                        caller = await self._rights.examine(session, process, EVIDENCE)
                elif described:
                    caller = await self._described(described)
                else:
                    caller = await self._rights.examine(session, session.process, EVIDENCE)
            except OSError as error:
                words = f"explain: that process cannot be looked at: {error.strerror}; give the pid of a running one"
                raise Failure(Code.BAD_REQUEST, words) from None
            policy = self._rights.policy if administrator else self._rights.matching_as(session, caller)
            allowed = [str(action) for action in Action if policy.allows(caller, action, grant)]
            if grant not in self._broker.grants:
                allowed = []
            found = {"grant": grant, "caller": _shown(caller), "allowed": allowed, "trusted": policy.trusts(caller)}
            return {**found, "rules": _judged(policy, caller, grant) if administrator else None}

        return answer

    async def _described(self, said: dict[str, str]) -> Caller:
        evidence: dict[str, Any] = {name: value for name, value in said.items() if name in EVIDENCE}
        if CREDENTIAL in said:
            if "user" in said or "unit" not in said:
                words = "explain: a credential is fetched by systemd for a unit; expected unit, and no user"
                raise Failure(Code.BAD_REQUEST, words)
            who = Caller(0, 0, frozenset({0}), "root", frozenset({"root"}), credential=said[CREDENTIAL])
            return replace(who, evidence=Evidence(**evidence))
        if "user" not in said:
            raise Failure(Code.BAD_REQUEST, "explain: a description of a caller needs a user")
        caller = await self._processes.of_user(said["user"])
        if caller is None:
            words = f"explain: this machine has no user {said['user'][:40]!r}; to list its users: getent passwd"
            raise Failure(Code.BAD_REQUEST, words)
        return replace(caller, evidence=Evidence(**evidence))


def _shown(caller: Caller) -> dict[str, object]:
    evidence = {name: getattr(caller.evidence, name) for name in sorted(EVIDENCE)}
    return {
        "pid": caller.pid,
        "uid": caller.uid,
        "user": caller.user,
        "gids": sorted(caller.gids),
        "groups": sorted(caller.groups),
        "foreign": caller.foreign,
        "credential": caller.credential,
        **evidence,
        "unread": dict(caller.evidence.unread),
    }


def _judged(policy: Policy, caller: Caller, grant: str) -> list[dict[str, object]]:
    """Every rule about the grant and, for each caller that it describes, why this caller is not that one."""
    return [
        {
            "rule": rule.place,
            "actions": sorted(map(str, rule.actions)),
            "variants": sorted({*rule.scope, *rule.audience, *rule.resource}),
            "matches": any(each.matches(caller) for each in rule.callers),
            "objections": [[f"{name} {words}" for name, words in each.objections(caller)] for each in rule.callers],
        }
        for rule in policy.rules
        if rule.covers(grant)
    ]
