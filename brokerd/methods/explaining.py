# explain: who would get what and by which rule, and why not. Rules are shown to administrators alone: to anybody else
# a grant that he may not have looks like one that is not there.
from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.policy import EVIDENCE, Action, Caller, Evidence, Policy
from brokerd.core.ports import Processes
from brokerd.methods.session import Later, Rights, Session

SAID = ("user", *sorted(EVIDENCE))  # what a caller who is not there can be described by


class Explaining:
    def __init__(self, broker: Broker, rights: Rights, processes: Processes) -> None:
        self._broker = broker
        self._rights = rights
        self._processes = processes

    def explain(self, session: Session, params: dict[str, Any]) -> Later:
        grant, described = params["grant"], {name: params[name] for name in SAID if name in params}
        if described or "pid" in params:
            self._rights.require_administration(session, "explain")
        if described and "pid" in params:
            raise Failure(Code.BAD_REQUEST, "explain: expected a pid or a description, found both")
        administrator = self._rights.own(session).allows_administration(session.caller)
        if administrator and grant not in self._broker.grants:
            raise unknown(grant)

        async def later() -> object:
            try:
                if "pid" in params:
                    with closing(await self._processes.of_pid(params["pid"])) as process:
                        caller = await self._rights.seen(session, process, EVIDENCE)
                elif described:
                    caller = await self._described(described)
                else:
                    caller = await self._rights.seen(session, session.process, EVIDENCE)
            except OSError as error:
                raise Failure(
                    Code.BAD_REQUEST, f"explain: that process cannot be looked at: {error.strerror}; name one that runs"
                ) from None
            policy = self._rights.policy if administrator else self._rights.own_of(session, caller)
            allowed = [str(action) for action in Action if policy.allows(caller, action, grant)]
            if grant not in self._broker.grants:
                allowed = []
            found = {"grant": grant, "caller": _shown(caller), "allowed": allowed, "trusted": policy.trusts(caller)}
            return {**found, "rules": _judged(policy, caller, grant) if administrator else None}

        return later

    async def _described(self, said: dict[str, str]) -> Caller:
        if "user" not in said:
            raise Failure(Code.BAD_REQUEST, "explain: a description needs a user")
        caller = await self._processes.of_user(said["user"])
        if caller is None:
            raise Failure(
                Code.BAD_REQUEST, f"explain: there is no user {said['user'][:40]!r} here; getent passwd lists them"
            )
        evidence: dict[str, Any] = {name: value for name, value in said.items() if name in EVIDENCE}
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
        **evidence,
        "unread": dict(caller.evidence.unread),
    }


def _judged(policy: Policy, caller: Caller, grant: str) -> list[dict[str, object]]:
    """Every rule about the grant: for each caller that it describes, what speaks against this one."""
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
