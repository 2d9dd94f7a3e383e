# Who may do what with which grants (law 9): default deny, rules add, none takes away. Pure: callers come as values that
# the kernel described (edge/peer.py, edge/process.py), rules as values that the configuration described.
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from brokerd.core.wanted import Wanted

OVERFLOW_ID = 65_534  # what the kernel shows for an id that has no mapping here: it is nobody, and matches nothing
DYNAMIC_IDS = range(61_184, 65_520)  # systemd gives these to services while they run, and then to others
PLACE = frozenset({"unit", "slice", "user_unit", "container"})  # selectors that a cgroup answers
PROGRAM = frozenset({"exe", "sha256"})  # and those that the executable answers
EVIDENCE = PLACE | PROGRAM  # selectors for which the process itself is looked at


class Action(StrEnum):
    GET = "get"  # get, watch, and that grant's status
    STATUS = "status"
    REFRESH = "refresh"
    REVOKE = "revoke"
    LOGIN = "login"  # login and import
    ADMIN = "admin"  # everything; on all grants ("*") also reload, adopt, forget and explaining others


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read of the process itself. None: not asked for, or not to be read; `unread` says why, by selector."""

    exe: str | None = None
    sha256: str | None = None
    unit: str | None = None
    slice: str | None = None
    user_unit: str | None = None
    container: str | None = None
    unread: Mapping[str, str] = field(default_factory=dict)


NOTHING_READ = Evidence()


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as the kernel described it. `user` and `groups` are the names that go with
    `uid` and `gids`; a name that could not be looked up is not there, and then matches nothing.
    `foreign`: it lives in another pid namespace, where neither its numbers nor its root are ours."""

    pid: int
    uid: int
    gids: frozenset[int]
    user: str | None = None
    groups: frozenset[str] = frozenset()
    foreign: bool = False
    evidence: Evidence = NOTHING_READ


@dataclass(frozen=True, slots=True)
class Selector:
    """A description of callers: everything that is said must hold. At least one thing is said."""

    user: str | None = None
    uid: int | None = None
    group: str | None = None
    gid: int | None = None
    exe: str | None = None
    sha256: str | None = None
    unit: str | None = None
    slice: str | None = None
    user_unit: str | None = None
    container: str | None = None

    def matches(self, caller: Caller) -> bool:
        return next(self.objections(caller), None) is None

    def may_match(self, caller: Caller) -> bool:
        """Whether it depends on nothing but evidence that is not read yet."""
        return all(name in EVIDENCE for name, _ in self.objections(caller))

    def asks(self) -> frozenset[str]:
        """The evidence that it names."""
        return frozenset(name for name in EVIDENCE if getattr(self, name) is not None)

    def objections(self, caller: Caller) -> Iterator[tuple[str, str]]:
        """Everything that keeps it from matching: the selector, and why in words. Nothing: it matches."""
        if caller.uid == OVERFLOW_ID:
            yield "uid", "its user has no mapping here"
        if caller.foreign and self.container is None:
            yield "pid namespace", "it runs in another pid namespace: only a rule that names its container can match"
        if caller.uid in DYNAMIC_IDS and self.unit is None:
            yield (
                "uid",
                f"{caller.uid} is a dynamic user's, given to others later: only a rule that names unit can match",
            )
        said = [name for name in self.__slots__ if getattr(self, name) is not None]
        if not said:
            yield "caller", "it names nobody"
        for name in said:
            if (words := self._objection(name, caller)) is not None:
                yield name, words

    def _objection(self, name: str, caller: Caller) -> str | None:
        wanted = getattr(self, name)
        if name == "group":
            found: object = ", ".join(sorted(caller.groups))
            holds = wanted in caller.groups
        elif name == "gid":
            found = ", ".join(map(str, sorted(caller.gids)))
            holds = wanted in caller.gids and wanted != OVERFLOW_ID
        else:
            found = getattr(caller.evidence if name in EVIDENCE else caller, name)
            holds = found is not None and found == wanted
        if holds:
            return None
        return f"is {found}" if found not in (None, "") else caller.evidence.unread.get(name, "is not known")


def learned(known: Caller, seen: Caller, needs: frozenset[str]) -> Caller:
    """What was known of the caller, with that evidence as it was seen now."""
    before, now = known.evidence, seen.evidence
    if before is NOTHING_READ:
        return seen
    found: dict[str, Any] = {name: getattr(now if name in needs else before, name) for name in EVIDENCE}
    unread = {name: why for name, why in before.unread.items() if name not in needs}
    return replace(known, evidence=Evidence(**found, unread={**unread, **now.unread}))


@dataclass(frozen=True, slots=True)
class Rule:
    """Callers that match any of `callers` may do `actions` with the grants that match any of `grants`. To get means the
    grant's own token; with `scope`, `audience` or `resource` it means the variants that they describe, and not that."""

    grants: tuple[str, ...]
    callers: tuple[Selector, ...]
    actions: frozenset[Action] = frozenset({Action.GET})
    scope: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    place: str = field(default="allow", compare=False)  # where it stands, for people: file and key

    def covers(self, grant: str) -> bool:
        return _matches(grant, self.grants)

    @property
    def is_of_variants(self) -> bool:
        return bool(self.scope or self.audience or self.resource)

    def admits(self, wanted: Wanted, granted: tuple[str, ...] | None) -> bool:
        """Whether it describes the variant: it names exactly what the rule names, within that. What the provider
        `granted` has to lie within it too: it may be more than was asked for."""
        scope = (*wanted.scope, *(granted or ())) if wanted.scope else ()
        audience, resource = (() if each is None else (each,) for each in (wanted.audience, wanted.resource))
        said = ((scope, self.scope), (audience, self.audience), (resource, self.resource))
        return self.is_of_variants and all(
            bool(asked) == bool(patterns) and all(_matches(each, patterns) for each in asked)
            for asked, patterns in said
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules, and the user that the daemon runs as: he and root may do everything."""

    rules: tuple[Rule, ...] = ()
    owner: int = 0
    _trusted: frozenset[int] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trusted", frozenset({0, self.owner}))

    def trusts(self, caller: Caller) -> bool:
        """Whether the caller may do everything without a rule: root here, or the daemon's own user."""
        return caller.uid in self._trusted and caller.uid != OVERFLOW_ID and not caller.foreign

    def allows(self, caller: Caller, action: Action, grant: str) -> bool:
        """Whether the caller may do it with that grant; to get is to get its own token."""
        own = action is Action.GET
        return self._any(caller, action, grant, lambda rule: not (own and rule.is_of_variants))

    def allows_variant(
        self, caller: Caller, grant: str, wanted: Wanted, granted: tuple[str, ...] | None = None
    ) -> bool:
        """Whether the caller may get that variant; `granted`: the scope that the provider said it has."""
        return self._any(caller, Action.GET, grant, lambda rule: rule.admits(wanted, granted))

    def _any(self, caller: Caller, action: Action, grant: str, allows: Callable[[Rule], bool]) -> bool:
        return self.trusts(caller) or any(
            _covers(rule.actions, action)
            and rule.covers(grant)
            and allows(rule)
            and any(selector.matches(caller) for selector in rule.callers)
            for rule in self.rules
        )

    def allows_administration(self, caller: Caller) -> bool:
        """Whether the caller may do what concerns the whole daemon."""
        return self.trusts(caller) or any(
            Action.ADMIN in rule.actions
            and "*" in rule.grants
            and any(selector.matches(caller) for selector in rule.callers)
            for rule in self.rules
        )

    def ground(self, caller: Caller, grant: str, wanted: Wanted | None = None) -> str:
        """By what the caller may get the grant's token, or that variant of it: the place of the first rule that says
        so, or that he is trusted. Empty: he may not."""
        if self.trusts(caller):
            return "root" if caller.uid == 0 else "the daemon's own user"
        for rule in self.rules:
            alone = replace(self, rules=(rule,))
            if alone.allows_variant(caller, grant, wanted) if wanted else alone.allows(caller, Action.GET, grant):
                return rule.place
        return ""

    def needs(self, caller: Caller, grant: str | None) -> frozenset[str]:
        """The evidence on which a rule about this grant (None: about any) could depend for this caller."""
        if self.trusts(caller):
            return frozenset()
        rules = (rule for rule in self.rules if grant is None or rule.covers(grant))
        hopeful = (each for rule in rules for each in rule.callers if each.may_match(caller))
        return frozenset().union(*(each.asks() for each in hopeful))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _covers(actions: frozenset[Action], action: Action) -> bool:
    if action in actions or Action.ADMIN in actions:
        return True
    return action is Action.STATUS and Action.GET in actions
