# The [[allow]] tables: who may do what with which grants.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from brokerd.config.settings import GrantSettings
from brokerd.core.policy import Action, Rule, Selector
from brokerd.core.typed import ConfigError, convert, expected

VARIANT_KEYS = ("scope", "audience", "resource")  # what a variant names


class SelectorFile(msgspec.Struct, forbid_unknown_fields=True):
    user: str | None = None
    uid: int | None = None
    group: str | None = None
    gid: int | None = None


class AllowFile(msgspec.Struct, forbid_unknown_fields=True):
    grants: list[str]
    caller: Any
    actions: list[Action] = msgspec.field(default_factory=lambda: [Action.GET])
    scope: list[str] | None = None
    audience: list[str] | None = None
    resource: list[str] | None = None


def read_rule(raw: Any, grants: Mapping[str, GrantSettings]) -> Rule:
    table = convert(raw, AllowFile)
    if not table.grants:
        raise expected('an array of grant names or globs, such as ["ix-*"]', table.grants, key="grants")
    for pattern in table.grants:
        if not set(pattern) & set("*?[") and pattern not in grants:
            known = ", ".join(sorted(grants)) or "none is configured"
            raise expected(f"a grant of this configuration ({known}) or a glob", pattern, key="grants")
    callers = table.caller if isinstance(table.caller, list) else [table.caller]
    if not callers:
        raise expected('a caller such as { user = "portal" }', table.caller, key="caller")
    if not table.actions:
        raise expected(f"one or more of {', '.join(Action)}", table.actions, key="actions")
    selectors = tuple(
        _selector(each, "caller" if len(callers) == 1 else f"caller[{n}]") for n, each in enumerate(callers)
    )
    said = {key: tuple(value) for key in VARIANT_KEYS if (value := getattr(table, key)) is not None}
    for key, value in said.items():
        if not value or "" in value:
            raise expected("an array of names or globs; leave it out for the grant's own token", list(value), key=key)
        if not {Action.GET, Action.ADMIN} & set(table.actions):
            raise ConfigError("it says which tokens may be got, and actions has no get", key=key)
    return Rule(tuple(table.grants), selectors, frozenset(table.actions), **said)


def _selector(raw: Any, key: str) -> Selector:
    table = convert(raw, SelectorFile, key)
    said = {name: value for name in table.__struct_fields__ if (value := getattr(table, name)) is not None}
    if not said:
        raise ConfigError("an empty caller would let everybody in; name a user, uid, group or gid", key=key)
    return Selector(**said)
