# What a DPoP proof says besides its request (RFC 9449 §4.2), and which other proof a server asks for by its refusal.
from __future__ import annotations

from dataclasses import dataclass, replace

from brokerd.core.exchange.steps import Response, Unanswered
from brokerd.dialects import answer_values
from brokerd.dialects.oauth2.outcomes import code

SKEW = 3.0  # seconds between two clocks for which a proof may have been refused; Date has whole ones


@dataclass(frozen=True, slots=True)
class Proof:
    """What a DPoP proof says besides its request. `at`: the server's time in Unix seconds, where ours was refused."""

    nonce: str | None
    at: float | None = None
    is_second: bool = False  # the server has asked for its nonce


def better(proof: Proof, response: Response | Unanswered) -> Proof | None:
    """The proof to send after the server refused this one; None if it asks for no other. The server has not looked at
    the tokens yet, so they are sent again. No error code says that the time is wrong: the answer's Date does."""
    if isinstance(response, Unanswered):
        return None
    match code(response):
        case "use_dpop_nonce" if not proof.is_second and (nonce := response.header("dpop-nonce")):
            return replace(proof, nonce=nonce, is_second=True)
        case "invalid_dpop_proof" | "invalid_request" if proof.at is None and (date := answer_values.dated(response)):
            if code(response) == "invalid_request" and b"dpop" not in response.body.lower():  # Keycloak's code for it
                return None
            nonce = response.header("dpop-nonce") or proof.nonce
            differs = abs(date - response.at.wall) > SKEW
            return replace(proof, nonce=nonce, at=date) if differs else None
    return None
