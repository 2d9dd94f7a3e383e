# Form fields that an operator adds to the requests of a grant (`[grants.NAME] request`), by the step that sends them.
# A field that brokerd sets itself cannot be added.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView

STEPS = ("issue", "login", "exchange", "renew", "revoke")
TARGETS = ("scope", "audience", "resource")
OURS = (
    *("grant_type", "client_secret", "client_assertion", "client_assertion_type", "username", "password", "assertion"),
    *("subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"),
    *("code", "code_verifier", "device_code", "refresh_token", "token", "token_type_hint"),
)
REFUSED: Mapping[str, tuple[str, ...]] = {  # names by step, besides OURS; brokerd sends none of these at a renewal
    "issue": TARGETS,
    "login": TARGETS,
    "exchange": ("redirect_uri",),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that is a secret: the name of the credential that holds it."""

    credential: str


@dataclass(frozen=True, slots=True)
class Added:
    """Fields by step and name. The store compares the repr of Added and Kept: rename neither."""

    fields: Mapping[str, Mapping[str, str | Kept]] = field(default_factory=dict)


def check(added: Added, grant_type: str, *, issues: bool, by_code: bool) -> None:
    """`issues`: tokens come from credentials or a password; `by_code`: from a login by code. Raises ConfigError."""
    sent = {"issue": issues, "login": by_code and grant_type != "authorization_code", "exchange": by_code}
    for step, fields in added.fields.items():
        if not sent.get(step, True):
            has_params = grant_type == "authorization_code" and step == "login"
            remedy = "write authorization_params instead" if has_params else "remove this table"
            raise ConfigError(f"grant_type {grant_type} has no such request; {remedy}", key=f"request.{step}")
        for name in fields:
            if name in OURS:
                raise ConfigError("brokerd sends this field itself; remove it", key=f"request.{step}.{name}")
            if name in REFUSED.get(step, ()):
                owner = "grant" if name in TARGETS else "login"
                words = f"brokerd sends the {owner}'s own {name} here; remove it"
                raise ConfigError(words, key=f"request.{step}.{name}")


def fields(view: GrantView, step: str) -> dict[str, str]:
    """The fields that are added to a request of that step. A request for a downscoped token has only the scope,
    audience and resource that its caller named."""
    added = view.settings.get("request")
    found = added.fields.get(step, {}) if isinstance(added, Added) else {}
    kept = {n: each for n, each in found.items() if view.target is None or n not in TARGETS}
    return {n: view.credentials[e.credential].reveal() if isinstance(e, Kept) else e for n, e in kept.items()}
