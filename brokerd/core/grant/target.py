# What a downscoped token is for: another scope, audience or resource than the grant's own (RFC 6749 §6, RFC 8707).
# core/access/policy.py says who may ask, server/methods/parameters.py whether the request is well-formed.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange.scope import is_cut


@dataclass(frozen=True, slots=True)
class Target:
    """None: not named. `scope` is sorted and without repetitions, so that the order of its names makes no
    difference."""

    scope: tuple[str, ...] | None = None
    audience: str | None = None
    resource: str | None = None

    def within(self, scope: object) -> bool:
        """Whether its scope is part of the other one; true if the other one is empty, because then it is not known."""
        return not scope or not isinstance(scope, list | tuple) or set(self.scope or ()) <= set(scope)

    def named(self) -> dict[str, str]:
        """What is named, as text for people and forms."""
        scope = " ".join(self.scope) if self.scope else None
        every = {"scope": scope, "audience": self.audience, "resource": self.resource}
        return {name: value for name, value in every.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.named().items())


def own_target(settings: Mapping[str, object], granted: tuple[str, ...] | None) -> Target:
    """What a grant's own tokens are for: the scope that the provider granted, unless it was cut, else as the grant is
    configured."""
    scope = granted if granted and not is_cut(granted) else settings.get("scope")
    audience, resource = (str(settings[name]) if settings.get(name) else None for name in ("audience", "resource"))
    return Target(tuple(map(str, scope)) if isinstance(scope, list | tuple) else None, audience, resource)
