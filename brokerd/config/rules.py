# The [[allow]] tables: who may do what with which grants.
from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

import msgspec

from brokerd.core.access.policy import DYNAMIC_IDS, OVERFLOW_ID, Action, Rule, Selector
from brokerd.core.validation import ConfigError, convert, expected

TARGET_KEYS = ("scope", "audience", "resource")  # what the caller of a downscoped token names


SelectorFile = msgspec.defstruct(  # the file's words are the policy's
    "SelectorFile",
    [(name, kind, None) for name, kind in get_type_hints(Selector).items()],
    forbid_unknown_fields=True,
)


class AllowFile(msgspec.Struct, forbid_unknown_fields=True):
    grants: list[str]
    caller: Any
    actions: list[Action] = msgspec.field(default_factory=lambda: [Action.GET])
    scope: list[str] | None = None
    audience: list[str] | None = None
    resource: list[str] | None = None


def read_rule(grants: Collection[str], place: str, raw: Any) -> Rule:
    """`place`: where it stands, for people."""
    table = convert(raw, AllowFile)
    if not table.grants:
        raise expected('an array of grant names or globs, such as ["ix-*"]', table.grants, key="grants")
    for pattern in table.grants:
        if not set(pattern) & set("*?[") and pattern not in grants:
            known = ", ".join(sorted(grants)) or "none is configured"
            raise expected(f"a grant of this configuration ({known}) or a glob", pattern, key="grants")
    selectors = read_selectors(table.caller)
    if not table.actions:
        raise expected(f"one or more of {', '.join(Action)}", table.actions, key="actions")
    said = {key: tuple(value) for key in TARGET_KEYS if (value := getattr(table, key)) is not None}
    for key, value in said.items():
        if not value or "" in value:
            raise expected("an array of names or globs; leave it out for the grant's own token", list(value), key=key)
        if not {Action.GET, Action.ADMIN} & set(table.actions):
            words = "this key limits which tokens may be fetched, but actions lacks get; add it, or remove this key"
            raise ConfigError(words, key=key)
    return Rule(tuple(table.grants), selectors, frozenset(table.actions), **said, place=place)


def read_selectors(raw: Any) -> tuple[Selector, ...]:
    """The key `caller`: one table, or an array of them. Raises ConfigError."""
    callers = raw if isinstance(raw, list) else [raw]
    if not callers:
        raise expected('a caller such as { user = "portal" }', raw, key="caller")
    several = len(callers) > 1
    return tuple(_selector(each, f"caller[{n}]" if several else "caller") for n, each in enumerate(callers))


def _selector(raw: Any, key: str) -> Selector:
    table = convert(raw, SelectorFile, key)
    said = {name: value for name in table.__struct_fields__ if (value := getattr(table, name)) is not None}
    if not said:
        names = ", ".join(table.__struct_fields__)
        raise ConfigError(f"an empty caller would match everybody; name one or more of {names}", key=key)
    for name, (form, wanted) in FORMS.items():
        if name in said and not form.fullmatch(said[name]):
            raise expected(wanted, said[name], key=f"{key}.{name}")
    for name, others in BESIDE.items():
        if name in said and not any(other in said for other in others):
            words = f"{name} alone is not enough: {WHY[name]}; add {' or '.join(others)}"
            raise ConfigError(words, key=f"{key}.{name}")
    for name in ("uid", "gid"):
        if said.get(name) == OVERFLOW_ID:
            words = f"the kernel shows {OVERFLOW_ID} for every user that has no id here, so it matches nobody"
            raise ConfigError(f"{words}; write another id", key=f"{key}.{name}")
    if (uid := said.get("uid")) in DYNAMIC_IDS and "unit" not in said:
        words = f"systemd gives {uid}, the id of a dynamic user, to another service later"
        raise ConfigError(f'{words}; name the service instead: {{ unit = "NAME.service" }}', key=f"{key}.uid")
    return Selector(**said)


UNIT = re.compile(r"[^/\s]+\.(service|scope|socket|mount|swap)"), 'a unit with its kind, such as "portal.service"'
FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "exe": (re.compile(r"/.*[^/]"), "an absolute path"),
    "sha256": (re.compile(r"[0-9a-f]{64}"), "64 lowercase hexadecimal digits, as sha256sum prints them"),
    "unit": UNIT,
    "user_unit": UNIT,
    "slice": (re.compile(r"[^/\s]+\.slice"), 'a slice such as "system.slice"'),
    "container": (re.compile(r"[0-9a-f]{64}"), "the whole id of a container, 64 lowercase hexadecimal digits"),
}
BESIDE: Mapping[str, tuple[str, ...]] = {
    "exe": ("user", "uid", "unit"),
    "sha256": ("user", "uid", "unit"),
    "user_unit": ("user", "uid"),
}
WHY: Mapping[str, str] = {
    "exe": "everybody may start that program",
    "sha256": "everybody may start that program",
    "user_unit": "every user can give a unit of theirs that name",
}
