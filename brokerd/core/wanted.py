# What a variant is asked for in the place of the grant's own token: scope, audience, resource (RFC 6749 §6, RFC 8707).
# A value to compare by; who may ask for it is policy.py's matter, whether it is well-formed methods/parameters.py's.
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """None: not named. `scope` is sorted, each once, so that the order of asking makes no other variant."""

    scope: tuple[str, ...] | None = None
    audience: str | None = None
    resource: str | None = None

    def within(self, scope: object) -> bool:
        """Whether its scope is part of that one; of none (nothing is known of it) everything is."""
        return not scope or not isinstance(scope, list | tuple) or set(self.scope or ()) <= set(scope)

    def named(self) -> dict[str, str]:
        """What is named, as text for people and forms."""
        said = {"scope": " ".join(self.scope) if self.scope else None}
        said |= {"audience": self.audience, "resource": self.resource}
        return {name: value for name, value in said.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.named().items())
