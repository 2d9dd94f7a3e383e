# Who may do what with which grants (law 9). Without a rule nothing is allowed; each rule allows more. Pure: the kernel
# describes callers (edge/peer/peer.py, edge/peer/process.py), the configuration describes rules.
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from brokerd.core.grant.target import Target

OVERFLOW_ID = 65_534  # the kernel shows it for an id without a mapping here; it matches nothing
DYNAMIC_IDS = range(61_184, 65_520)  # systemd gives these to services while they run, and later to others
PLACE = frozenset({"unit", "slice", "user_unit", "container"})  # selectors that need the process's cgroup
PROGRAM = frozenset({"exe", "sha256"})  # selectors that need its executable
EVIDENCE = PLACE | PROGRAM
REMEMBERED = 1_000  # names
LONGEST_NAME = 128  # characters of a grant's name (config/toml_files.py); a longer name cannot exist


class Action(StrEnum):
    GET = "get"  # get, watch, and that grant's status
    STATUS = "status"
    REFRESH = "refresh"
    REVOKE = "revoke"
    LOGIN = "login"  # login and import
    ADMIN = "admin"  # everything; on all grants ("*") also reload, adopt, forget and explaining others


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read about the process. None: it was not needed, or could not be read; `unread` says why, by selector.
    `hashed`: how many bytes were hashed for it now."""

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
    """The process at the other end, as the kernel described it. `user` and `groups` are the names of `uid` and `gids`;
    a name that could not be looked up is missing, and no rule for that name matches. `foreign`: it runs in another pid
    namespace, so its pid and its root directory are not those that brokerd sees. `credential`: the credential of a unit
    (LoadCredential=) that its connection fetches."""

    pid: int
    uid: int
    gids: frozenset[int]
    user: str | None = None
    groups: frozenset[str] = frozenset()
    foreign: bool = False
    credential: str | None = None
    evidence: Evidence = NOTHING_READ

    @property
    def is_systemd(self) -> bool:
        """Whether it is root's process that fetches a credential for a unit. Its user, groups and program are systemd's
        and say nothing about the unit."""
        return self.credential is not None and self.uid == 0


@dataclass(frozen=True, slots=True)
class Selector:
    """A description of callers: everything that it names must match. It names at least one thing."""

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
        """Whether it matches, apart from evidence that was not read yet."""
        return all(name in EVIDENCE for name, _ in self.objections(caller))

    def asks(self) -> frozenset[str]:
        """The evidence that it needs."""
        return frozenset(name for name in EVIDENCE if getattr(self, name) is not None)

    def asks_nothing(self, _caller: Caller) -> bool:
        """Whether it needs no evidence."""
        return not self.asks()

    def objections(self, caller: Caller) -> Iterator[tuple[str, str]]:
        """Why it does not match: each selector, with the reason in words. Nothing: it matches."""
        if caller.uid == OVERFLOW_ID:
            yield "uid", "its user has no id here, so the kernel shows 65534 for it"
        if caller.foreign and self.container is None:
            yield "pid namespace", "it runs in another pid namespace: only a rule that names its container can match"
        if caller.uid in DYNAMIC_IDS and self.unit is None:
            why = "belongs to a dynamic user, and later to another service: only a rule that names unit can match"
            yield "uid", f"{caller.uid} {why}"
        named = [name for name in self.__slots__ if getattr(self, name) is not None]
        if not named:
            yield "caller", "it names nobody"
        for name in named:
            if (words := self._objection(name, caller)) is not None:
                yield name, words

    def _objection(self, name: str, caller: Caller) -> str | None:
        expected = getattr(self, name)
        if caller.is_systemd and name not in PLACE:
            return "is that of systemd, which fetches the credential: name only the unit or its slice"
        if name == "group":
            found: object = ", ".join(sorted(caller.groups))
            holds = expected in caller.groups
        elif name == "gid":
            found = ", ".join(map(str, sorted(caller.gids)))
            holds = expected in caller.gids and expected != OVERFLOW_ID
        else:
            found = getattr(caller.evidence if name in EVIDENCE else caller, name)
            holds = found is not None and found == expected
        if holds:
            return None
        return f"is {found}" if found not in (None, "") else caller.evidence.unread.get(name, "is not known")


def learned(known: Caller, seen: Caller, needs: frozenset[str]) -> Caller:
    """The caller as known before, with the evidence in `needs` as it was read now."""
    before, now = known.evidence, seen.evidence
    if before is NOTHING_READ:
        return seen
    found: dict[str, Any] = {name: getattr(now if name in needs else before, name) for name in EVIDENCE}
    unread = {name: why for name, why in before.unread.items() if name not in needs}
    return replace(known, evidence=Evidence(**found, unread={**unread, **now.unread}))


@dataclass(frozen=True, slots=True)
class Rule:
    """Callers that match any of `callers` may do `actions` with the grants that match any of `grants`. The action get
    means the grant's own token. If `scope`, `audience` or `resource` is set, it means downscoped tokens only."""

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
    def is_for_downscoped(self) -> bool:
        return bool(self.scope or self.audience or self.resource)

    def admits(self, target: Target, granted: tuple[str, ...] | None) -> bool:
        """Whether it describes the downscoped token: the target names what the rule names, and nothing else. The scope
        that the provider `granted` must match too, because it may be more than was requested."""
        scope = (*target.scope, *(granted or ())) if target.scope else ()
        audience, resource = (() if each is None else (each,) for each in (target.audience, target.resource))
        pairs = ((scope, self.scope), (audience, self.audience), (resource, self.resource))
        return self.is_for_downscoped and all(
            bool(names) == bool(patterns) and all(_matches(each, patterns) for each in names)
            for names, patterns in pairs
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules, and the user that the daemon runs as. That user and root may do everything."""

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
        """The rules that cover the grant, in their order."""
        if len(grant) > LONGEST_NAME:
            return []
        named = self._named.get(grant, [])
        found = [number for number in self._patterned if self.rules[number].covers(grant)]
        return [self.rules[number] for number in (sorted({*named, *found}) if found else named)]

    def of(self, caller: Caller, fits: Callable[[Selector, Caller], bool]) -> Policy:
        """The rules that fit the caller, with their fitting selectors only."""
        found = ((rule, tuple(each for each in rule.callers if fits(each, caller))) for rule in self.rules)
        return replace(self, rules=tuple(replace(rule, callers=callers) for rule, callers in found if callers))

    def trusts(self, caller: Caller) -> bool:
        """Whether the caller may do everything without a rule: root here, or the daemon's own user. A unit gets no
        credential because systemd is root."""
        ours = not caller.foreign and not caller.is_systemd
        return ours and caller.uid in self._trusted and caller.uid != OVERFLOW_ID

    def allows(self, caller: Caller, action: Action, grant: str) -> bool:
        """Whether the caller may do it with that grant; GET is about the grant's own token."""
        own = action is Action.GET
        return self._any(caller, action, grant, lambda rule: not (own and rule.is_for_downscoped))

    def allows_downscoped(
        self, caller: Caller, grant: str, target: Target, granted: tuple[str, ...] | None = None
    ) -> bool:
        """Whether the caller may get that downscoped token; `granted`: the scope that the provider granted."""
        return self._any(caller, Action.GET, grant, lambda rule: rule.admits(target, granted))

    def _any(self, caller: Caller, action: Action, grant: str, allows: Callable[[Rule], bool]) -> bool:
        return self.trusts(caller) or any(
            _covers(rule.actions, action) and allows(rule) and rule.fits(caller) for rule in self.about(grant)
        )

    def allows_administration(self, caller: Caller) -> bool:
        """Whether the caller may do what concerns the whole daemon."""
        return self.trusts(caller) or any(
            Action.ADMIN in rule.actions and "*" in rule.grants and rule.fits(caller) for rule in self.about("*")
        )

    def allows_status_of_all(self, caller: Caller) -> bool:
        """Whether the caller may see how every grant is, also those of other hosts."""
        return self.allows_administration(caller) or any(
            _covers(rule.actions, Action.STATUS) and "*" in rule.grants and rule.fits(caller)
            for rule in self.about("*")
        )

    def ground(self, caller: Caller, grant: str, target: Target | None = None) -> str:
        """Why the caller may get the grant's token, or a downscoped one: the place of the first rule that allows it, or
        that the caller is trusted. Empty: it may not."""
        if self.trusts(caller):
            return "root" if caller.uid == 0 else "the daemon's own user"
        for rule in self.about(grant):
            describes = rule.admits(target, None) if target else not rule.is_for_downscoped
            if _covers(rule.actions, Action.GET) and describes and rule.fits(caller):
                return rule.place
        return ""


class Standing:
    """The rules that may apply to one caller, whatever its evidence. They are looked up once, so that a request does
    not search all rules."""

    def __init__(self, policy: Policy, caller: Caller) -> None:
        trusted = policy.trusts(caller)
        self._possible = replace(policy, rules=()) if trusted else policy.of(caller, Selector.may_match)
        self._certain = self._possible.of(caller, Selector.asks_nothing)
        self._asked = _asked(self._possible.rules)
        self._last: tuple[Caller, Policy] | None = None  # a program connects many times, and shows the same each time
        self._needs: dict[str, frozenset[str]] = {}  # by grant, where a rule needs no evidence

    @property
    def size(self) -> int:
        """How many descriptions of callers may match this one."""
        return self._possible.size

    def needs(self, grant: str | None) -> frozenset[str]:
        """The evidence to read before the rules for this grant are applied (None: for several grants). Unless a rule
        allows the grant without evidence, it is the same for every name. So neither the evidence that is read nor the
        time it takes shows which grants have rules."""
        if not self._asked or grant is None or not self._certain.about(grant):
            return self._asked
        if (found := self._needs.get(grant)) is None:
            if len(self._needs) >= REMEMBERED:
                self._needs.clear()
            found = self._needs[grant] = _asked(self._possible.about(grant))
        return found

    def policy(self, caller: Caller) -> Policy:
        """The rules that the caller matches with its evidence."""
        if not self._asked:
            return self._certain
        if self._last is None or self._last[0] is not caller:
            self._last = caller, self._possible.of(caller, Selector.matches)
        return self._last[1]


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
