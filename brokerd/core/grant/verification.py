# What a caller learns if the provider was asked whether a grant's tokens are active (RFC 7662). Pure;
# broker/exchanges.py asks. The answer changes nothing: only an exchange for a token can show that a token is dead.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange.outcomes import Done, Issued, Outcome, Rejected

ACCESS, REFRESH = "access token", "refresh token"
NOT_ACTIVE = "not active, or this client may not ask about it"  # RFC 7662 §2.2: the same answer for both


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the provider says that the tokens are active; None: there is no token, or the provider did not say."""

    access_token: bool | None
    refresh_token: bool | None
    detail: str


def verification(grant: str, found: Mapping[str, Outcome]) -> Verification:
    """`found`: the outcome for each of the grant's tokens."""
    kinds: dict[str, list[str]] = {}
    for kind, outcome in found.items():
        kinds.setdefault(_words(outcome), []).append(kind)
    words = [f"{' and '.join(those)}: {each}" for each, those in kinds.items()]
    if NOT_ACTIVE in kinds:
        words.append(f"for another token: brokerctl refresh {grant}")
    detail = "; ".join(words) or "the grant has no token that is alive"
    return Verification(_is_active(found.get(ACCESS)), _is_active(found.get(REFRESH)), detail)


def _is_active(outcome: Outcome | None) -> bool | None:
    return isinstance(outcome, Done) if isinstance(outcome, Done | Rejected) else None


def _words(outcome: Outcome) -> str:
    match outcome:
        case Done():
            return "active"
        case Rejected():
            return NOT_ACTIVE
        case Issued():
            raise AssertionError("a question about a token brings no tokens")
        case _:
            return f"not known ({outcome.reason})"
