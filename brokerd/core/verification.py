# What a caller learns where the provider was asked whether it agrees about a grant's tokens (RFC 7662). Pure; asking is
# exchanger.py's matter. Nothing follows from it: a token is dead only by what an exchange for a token brings.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.outcome import Done, Issued, Outcome, Rejected

ACCESS, REFRESH = "access token", "refresh token"
NOT_ACTIVE = "not active, or not this client's to ask about"  # RFC 7662 §2.2: the two are answered alike


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the provider says that the tokens are active; None: there is none, or it did not say."""

    access_token: bool | None
    refresh_token: bool | None
    detail: str


def verification(grant: str, found: Mapping[str, Outcome]) -> Verification:
    """`found`: how the question about each token ended that there is."""
    said: dict[str, list[str]] = {}
    for kind, outcome in found.items():
        said.setdefault(_words(outcome), []).append(kind)
    words = [f"{' and '.join(kinds)}: {each}" for each, kinds in said.items()]
    if NOT_ACTIVE in said:
        words.append(f"for another token: brokerctl refresh {grant}")
    detail = "; ".join(words) or "there is no token to ask about"
    return Verification(_said(found.get(ACCESS)), _said(found.get(REFRESH)), detail)


def _said(outcome: Outcome | None) -> bool | None:
    return isinstance(outcome, Done) if isinstance(outcome, Done | Rejected) else None


def _words(outcome: Outcome) -> str:
    match outcome:
        case Done():
            return "active"
        case Rejected():
            return NOT_ACTIVE
        case Issued():
            raise AssertionError("a question about a token brings none")
        case _:
            return f"not known ({outcome.reason})"
