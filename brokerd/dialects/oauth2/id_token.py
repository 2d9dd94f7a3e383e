# Who logged in, as an id_token says (OpenID Connect Core 1.0 §3.1.3.7). It came straight from the token endpoint over
# TLS, which item 6 there accepts instead of its signature; everything else that it claims is checked.
from __future__ import annotations

from brokerd.core.exchange.jwt_claims import unverified_claims
from brokerd.dialects import answer_values

LONGEST = 255  # characters of a subject (OpenID Connect Core 1.0 §2)
LEEWAY = 300.0  # seconds that the server's clock may differ from ours


class NotOurs(Exception):
    """The id_token is not for this login. The text says why and quotes nothing from the token."""


def subject(raw: object, *, issuer: str | None, client_id: str, nonce: str | None, now: float) -> str | None:
    """The subject; None where there is no id_token. `nonce`: what the authorization request said. Raises NotOurs."""
    if raw is None:
        return None
    try:
        claims = unverified_claims(str(raw))
    except ValueError:
        raise NotOurs("it is no JWT") from None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    end, who = answer_values.number(claims.get("exp")), claims.get("sub")
    if issuer is not None and claims.get("iss") != issuer:
        raise NotOurs("another issuer")
    if client_id not in audiences or claims.get("azp", client_id) != client_id:
        raise NotOurs("another client")
    if end is None or end + LEEWAY < now:
        raise NotOurs("expired")
    if nonce is not None and claims.get("nonce") != nonce:
        raise NotOurs("another nonce")
    if not isinstance(who, str) or not 0 < len(who) <= LONGEST:
        raise NotOurs("no subject")
    return who
