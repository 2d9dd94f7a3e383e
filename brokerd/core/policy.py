# Who may do what with which grants (law 9): default deny, rules add. Pure: callers come as values that the kernel
# described (edge/peer.py), rules as values that the configuration described (config.py).
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from brokerd.core.wanted import Wanted

OVERFLOW_ID = 65_534  # what the kernel shows for an id that has no mapping here: it is nobody, and matches nothing


class Action(StrEnum):
    GET = "get"  # get, watch, and that grant's status
    STATUS = "status"
    REFRESH = "refresh"
    REVOKE = "revoke"
    LOGIN = "login"  # login and import
    ADMIN = "admin"  # everything; on all grants ("*") also reload, adopt and forget


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as the kernel described it. `user` and `groups` are the names that go with
    `uid` and `gids`; a name that could not be looked up is not there, and then matches nothing."""

    pid: int
    uid: int
    gids: frozenset[int]
    user: str | None = None
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selector:
    """A description of callers: everything that is said must hold. At least one thing is said."""

    user: str | None = None
    uid: int | None = None
    group: str | None = None
    gid: int | None = None

    def matches(self, caller: Caller) -> bool:
        said = (
            (self.user, caller.user == self.user),
            (self.uid, caller.uid == self.uid),
            (self.group, self.group in caller.groups),
            (self.gid, self.gid in caller.gids and self.gid != OVERFLOW_ID),
        )
        named = [holds for selector, holds in said if selector is not None]
        return bool(named) and all(named)


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
        if caller.uid == OVERFLOW_ID:
            return False
        if caller.uid in self._trusted:
            return True
        return any(
            _covers(rule.actions, action)
            and _matches(grant, rule.grants)
            and allows(rule)
            and any(selector.matches(caller) for selector in rule.callers)
            for rule in self.rules
        )

    def allows_administration(self, caller: Caller) -> bool:
        """Whether the caller may do what concerns the whole daemon."""
        if caller.uid == OVERFLOW_ID:
            return False
        return caller.uid in self._trusted or any(
            Action.ADMIN in rule.actions
            and "*" in rule.grants
            and any(selector.matches(caller) for selector in rule.callers)
            for rule in self.rules
        )

    def ground(self, caller: Caller, action: Action, grant: str) -> str:
        """By what the caller may do it: the first rule that says so, by its place among all, or because he is who he
        is. Empty: he may not."""
        if replace(self, rules=()).allows(caller, action, grant):
            return "root" if caller.uid == 0 else "the daemon's own user"
        saying = (n for n, rule in enumerate(self.rules) if replace(self, rules=(rule,)).allows(caller, action, grant))
        return next((f"allow[{number}]" for number in saying), "")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _covers(actions: frozenset[Action], action: Action) -> bool:
    if action in actions or Action.ADMIN in actions:
        return True
    return action is Action.STATUS and Action.GET in actions
