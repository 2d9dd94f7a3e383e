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
REMEMBERED = 1_000  # names
LONGEST_NAME = 128  # characters of a grant's name (config/tables.py): no longer one is compared, nor remembered


class Action(StrEnum):
    GET = "get"  # get, watch, and that grant's status
    STATUS = "status"
    REFRESH = "refresh"
    REVOKE = "revoke"
    LOGIN = "login"  # login and import
    ADMIN = "admin"  # everything; on all grants ("*") also reload, adopt, forget and explaining others


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read of the process itself. None: not asked for, or not to be read; `unread` says why, by selector.
    `hashed`: bytes that were read for it now, which cost time."""

    exe: str | None = None
    sha256: str | None = None
    unit: str | None = None
    slice: str | None = None
    user_unit: str | None = None
    container: str | None = None
    unread: Mapping[str, str] = field(default_factory=dict)
    hashed: int = field(default=0, compare=False)


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

    def asks_nothing(self, _caller: Caller) -> bool:
        """Whether it decides without evidence."""
        return not self.asks()

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

    def fits(self, caller: Caller) -> bool:
        return any(each.matches(caller) for each in self.callers)

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
    _named: Mapping[str, list[int]] = field(init=False, repr=False, compare=False)  # rules by a grant's whole name
    _patterned: tuple[int, ...] = field(init=False, repr=False, compare=False)  # rules whose grants have wildcards

    def __post_init__(self) -> None:
        named: dict[str, list[int]] = {}
        for number, rule in enumerate(self.rules):
            for name in dict.fromkeys(rule.grants):
                named.setdefault(name, []).append(number)
        patterned = [number for number, rule in enumerate(self.rules) if any(map(_is_pattern, rule.grants))]
        object.__setattr__(self, "_trusted", frozenset({0, self.owner}))
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_patterned", tuple(patterned))

    @property
    def size(self) -> int:
        """How many descriptions of callers its rules have."""
        return sum(len(rule.callers) for rule in self.rules)

    def about(self, grant: str) -> list[Rule]:
        """The rules that cover the grant, in their order. A name that no rule has costs a look at the patterns."""
        if len(grant) > LONGEST_NAME:
            return []
        named = self._named.get(grant, [])
        found = [number for number in self._patterned if self.rules[number].covers(grant)]
        return [self.rules[number] for number in (sorted({*named, *found}) if found else named)]

    def of(self, caller: Caller, fits: Callable[[Selector, Caller], bool]) -> Policy:
        """The rules, and of these the selectors, that fit the caller."""
        found = ((rule, tuple(each for each in rule.callers if fits(each, caller))) for rule in self.rules)
        return replace(self, rules=tuple(replace(rule, callers=callers) for rule, callers in found if callers))

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
            _covers(rule.actions, action) and allows(rule) and rule.fits(caller) for rule in self.about(grant)
        )

    def allows_administration(self, caller: Caller) -> bool:
        """Whether the caller may do what concerns the whole daemon."""
        return self.trusts(caller) or any(
            Action.ADMIN in rule.actions and "*" in rule.grants and rule.fits(caller) for rule in self.about("*")
        )

    def ground(self, caller: Caller, grant: str, wanted: Wanted | None = None) -> str:
        """By what the caller may get the grant's token, or that variant of it: the place of the first rule that says
        so, or that it is trusted. Empty: it may not."""
        if self.trusts(caller):
            return "root" if caller.uid == 0 else "the daemon's own user"
        for rule in self.about(grant):
            describes = rule.admits(wanted, None) if wanted else not rule.is_of_variants
            if _covers(rule.actions, Action.GET) and describes and rule.fits(caller):
                return rule.place
        return ""


class Standing:
    """What the rules can say to one caller, whatever evidence it shows: looked up once, so that a request costs a look
    at the caller's own rules and not at everybody's."""

    def __init__(self, policy: Policy, caller: Caller) -> None:
        trusted = policy.trusts(caller)
        self._possible = replace(policy, rules=()) if trusted else policy.of(caller, Selector.may_match)
        self._certain = self._possible.of(caller, Selector.asks_nothing)
        self._asked = _asked(self._possible.rules)
        self._needs: dict[str, frozenset[str]] = {}  # of grants that it may have without any

    @property
    def size(self) -> int:
        """How many descriptions can be the caller's."""
        return self._possible.size

    def needs(self, grant: str | None) -> frozenset[str]:
        """The evidence to look at before the rules are asked about this grant (None: about more than one). Where no
        rule about the grant holds without any, that is the same for every name: what is looked at, and how long that
        takes, tells nobody which names there are rules about."""
        if not self._asked or grant is None or not self._certain.about(grant):
            return self._asked
        if (found := self._needs.get(grant)) is None:
            if len(self._needs) >= REMEMBERED:
                self._needs.clear()
            found = self._needs[grant] = _asked(self._possible.about(grant))
        return found

    def policy(self, caller: Caller) -> Policy:
        """The rules that the caller matches, with the evidence that it shows."""
        return self._possible.of(caller, Selector.matches)


def _asked(rules: Iterable[Rule]) -> frozenset[str]:
    return frozenset().union(*(each.asks() for rule in rules for each in rule.callers))


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _covers(actions: frozenset[Action], action: Action) -> bool:
    if action in actions or Action.ADMIN in actions:
        return True
    return action is Action.STATUS and Action.GET in actions
